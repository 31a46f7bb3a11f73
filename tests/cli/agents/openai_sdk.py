"""An agent with OpenAI's SDK alone."""

import json

from openai import AsyncOpenAI

STOCK = {"hammer": 7, "saw": 3}


async def run(texts, row, model):
    parameters = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
    tool = {"name": "stock", "description": texts["tool:stock"], "parameters": parameters}
    messages = [{"role": "system", "content": texts["instruction"]}, {"role": "user", "content": row["question"]}]
    async with AsyncOpenAI(base_url=model.url, api_key=model.key) as client:
        while True:
            reply = await client.chat.completions.create(
                model=model.name, messages=messages, tools=[{"type": "function", "function": tool}]
            )
            message = reply.choices[0].message
            if not message.tool_calls:
                return message.content
            messages.append(message)
            for call in message.tool_calls:
                pieces = STOCK.get(json.loads(call.function.arguments)["item"], 0)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": f"{pieces} pieces"})
