#!/bin/sh
# Makes what the containers of compose.yaml work with. It runs whenever they are started, and makes only what is missing.
set -eu
home=${ASHLAR_HOME:-/var/lib/ashlar}
servers=${NATS_SERVERS:-nats://nats-1:4222, nats://nats-2:4222, nats://nats-3:4222}
health=${ASHLAR_HEALTH:-127.0.0.1:9101}
repository=$home/repository
config=$repository/ashlar.yaml
users=$home/nats-users/ashlar-users.conf

for folder in nats-users client hv1; do mkdir -p "$home/$folder"; done

has_section() { grep -q "^$1:" "$config"; }

if [ ! -f "$config" ]; then
  ashlar init "$repository" --storage "here=$home/here" --storage "there=$home/there"
fi

has_section nats || cat >> "$config" << END
host: central
nats:
  servers: [$servers]
  nkeyFile: central.nk
  replicas: 3
agent:
  health: $health
END

# The metadata go to FoundationDB: several containers cannot share an LMDB.
if [ -n "${FDB_CLUSTER:-}" ] && ! has_section foundationdb; then
  [ -f "$repository/fdb.cluster" ] || echo "$FDB_CLUSTER" > "$repository/fdb.cluster"
  ashlar --config "$repository" --yes kv copy foundationdb \
    --cluster-file "$repository/fdb.cluster" --prefix ashlar
  cat >> "$config" << END
foundationdb:
  clusterFile: fdb.cluster
  prefix: ashlar
END
fi

# A user whose key was not written, because a start was cut off, is made anew.
forget() { ashlar --config "$repository" revoke "$1" --nats-users "$users" > /dev/null 2>&1 || true; }

make_user() {
  [ -s "$3" ] && return
  forget "$1"
  rm -f "$3"
  ashlar --config "$repository" nats-user "$1" "$3" --role "$2" --nats-users "$users"
}

make_user central core "$repository/central.nk"
make_user client client "$home/client/client.nk"
cat > "$home/client/client.yaml" << END
version: 1
nats: { servers: [$servers], nkeyFile: client.nk, inboxPrefix: _INBOX_client }
END

if [ ! -s "$home/hv1/agent.nk" ]; then
  forget hv1
  rm -f "$home/hv1/agent.yaml" "$home/hv1/dedup.key"
  ashlar --config "$repository" enroll hv1 "$home/hv1" \
    --source '/dev/**' --target '/dev/**' --nats-users "$users"
fi
grep -q '^  health:' "$home/hv1/agent.yaml" ||
  sed -i "s/^agent:\$/agent:\\n  health: $health/" "$home/hv1/agent.yaml"
