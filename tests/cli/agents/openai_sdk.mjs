// An agent with OpenAI's SDK for Node: {"texts", "row", "model"} on standard input, {"answer"} on standard output.
import { text } from "node:stream/consumers";
import OpenAI from "openai";

const STOCK = { hammer: 7, saw: 3 };
const { texts, row, model } = JSON.parse(await text(process.stdin));
const client = new OpenAI(); // OPENAI_BASE_URL, OPENAI_API_KEY
const parameters = { type: "object", properties: { item: { type: "string" } }, required: ["item"] };
const tools = [{ type: "function", function: { name: "stock", description: texts["tool:stock"], parameters } }];
const messages = [
  { role: "system", content: texts.instruction },
  { role: "user", content: row.question },
];
for (;;) {
  const reply = await client.chat.completions.create({ model: model.name, messages, tools });
  const message = reply.choices[0].message;
  if (!message.tool_calls) {
    console.log(JSON.stringify({ answer: message.content }));
    break;
  }
  messages.push(message);
  for (const call of message.tool_calls) {
    const pieces = STOCK[JSON.parse(call.function.arguments).item] ?? 0;
    messages.push({ role: "tool", tool_call_id: call.id, content: `${pieces} pieces` });
  }
}
