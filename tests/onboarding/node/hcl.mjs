// Standard input: a JSON array of texts of HCL. Output: a JSON array of what is in them.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.ONBOARDING_NODE_PATH + "/");
const { parse } = require("@cdktf/hcl2json");

const results = [];
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
  results.push(await parse("main.tf", text));
}
console.log(JSON.stringify(results));
