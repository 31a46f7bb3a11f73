"""An agent with Anthropic's SDK alone."""

from anthropic import AsyncAnthropic

STOCK = {"hammer": 7, "saw": 3}


async def run(texts, row, model):
    schema = {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
    tool = {"name": "stock", "description": texts["tool:stock"], "input_schema": schema}
    messages = [{"role": "user", "content": row["question"]}]
    async with AsyncAnthropic(base_url=model.anthropic_url, api_key=model.key) as client:
        while True:
            reply = await client.messages.create(
                model=model.name, max_tokens=200, system=texts["instruction"], messages=messages, tools=[tool]
            )
            calls = [block for block in reply.content if block.type == "tool_use"]
            if not calls:
                return "".join(block.text for block in reply.content)
            messages.append({"role": "assistant", "content": reply.content})
            results = [(call.id, f"{STOCK.get(call.input['item'], 0)} pieces") for call in calls]
            blocks = [{"type": "tool_result", "tool_use_id": id, "content": content} for id, content in results]
            messages.append({"role": "user", "content": blocks})
