// Standard input: a JSON array of simulations. Output: for each, Allowed, ImplicitlyDenied, ExplicitlyDenied.
//
// The library's own door drops context keys with a name of the caller's after a colon, such as
// kms:EncryptionContext:tenant (it knows those after a slash), and its other door takes no policies of resources. So
// the first one only validates policies, actions and resources here, and its engine is asked directly.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const installed = process.env.ONBOARDING_NODE_PATH;
const require = createRequire(installed + "/");
const engine = (file) => require(join(installed, "@cloud-copilot/iam-simulate/dist/cjs", file));
const { runSimulation } = require("@cloud-copilot/iam-simulate");
const { loadPolicy } = require("@cloud-copilot/iam-policy");
const { authorize } = engine("core_engine/CoreSimulatorEngine.js");
const { AwsRequestImpl } = engine("request/request.js");
const { RequestContextImpl } = engine("requestContext.js");
const { DiscoveryContextKeyConstraints } = engine("context_keys/discoveryContextKeyConstraints.js");

function evaluate({ request: { principal, action, resource, contextVariables }, identityPolicies, resourcePolicy }) {
  const context = new RequestContextImpl(contextVariables);
  return authorize({
    request: new AwsRequestImpl(principal, resource, action, context),
    identityPolicies: identityPolicies.map(({ name, policy }) => loadPolicy(policy, { name })),
    resourcePolicy: loadPolicy(resourcePolicy, { name: "resource" }),
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    simulationParameters: {
      simulationMode: "Strict",
      discoveryContextKeyConstraints: new DiscoveryContextKeyConstraints([]),
    },
    serviceSettings: {},
  }).result;
}

const results = [];
for (const simulation of JSON.parse(readFileSync(0, "utf8"))) {
  const validated = await runSimulation(simulation, { simulationMode: "Strict" });
  if (validated.resultType === "error") {
    throw new Error(JSON.stringify([simulation.request, validated.errors]));
  }
  results.push(evaluate(simulation));
}
console.log(JSON.stringify(results));
