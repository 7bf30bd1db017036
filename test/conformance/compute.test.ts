import { createInlineCompute } from "#lib/drivers/compute/inline-compute.ts";
import { createWorkerCompute } from "#lib/drivers/compute/worker-compute.ts";
import { blockTaskSource, createTasks } from "#lib/repository/block-tasks.ts";
import { describeCompute } from "./compute.ts";

describeCompute("inline", { open: (setup) => createInlineCompute(createTasks(setup)) });

describeCompute("one worker", {
  open: (setup) => createWorkerCompute({ tasks: blockTaskSource(setup), concurrency: 1 }),
});

describeCompute("workers", {
  open: (setup) => createWorkerCompute({ tasks: blockTaskSource(setup), concurrency: 3 }),
});
