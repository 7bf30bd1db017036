// The agents of a local cluster: one role for each process.
import { editYaml, type Setting } from "./edit-yaml.ts";
import { answersWell, type LocalCluster } from "./local-cluster.ts";
import { natsUrls } from "./nats.ts";
import { AGENTS, ASHLAR, type AgentPlan } from "./place.ts";

/** Starts those agents that do not run, and waits until all are connected. */
export async function startAgents(cluster: LocalCluster): Promise<void> {
  for (const plan of AGENTS) {
    await configure(cluster, plan);
    const config = cluster.place.agentConfig(plan);
    await cluster.launch(plan.name, [ASHLAR, "--config", config, "agent", "--roles", plan.role]);
  }
  for (const { name } of AGENTS) {
    const port = cluster.port(name);
    await cluster.untilReady(name, () => answersWell(port, "/readyz"));
    cluster.say(`${name} is ready`);
  }
}

/** Each answers for its health at a port of its own, and so has a configuration of its own. */
async function configure({ place, state }: LocalCluster, plan: AgentPlan): Promise<void> {
  const health: Setting = [["agent", "health"], `127.0.0.1:${state.ports[plan.name]}`];
  const config = place.agentConfig(plan);
  if (plan.host === undefined) {
    await editYaml(place.repositoryConfig, [health], config);
  } else {
    await editYaml(config, [health, [["nats", "servers"], natsUrls(state.ports)]]);
  }
}
