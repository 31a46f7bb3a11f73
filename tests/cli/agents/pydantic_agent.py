"""An agent with pydantic-ai."""

from pydantic_ai import Agent, Tool
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

STOCK = {"hammer": 7, "saw": 3}


async def run(texts, row, model):
    def stock(item: str) -> str:
        return f"{STOCK.get(item, 0)} pieces"

    agent = Agent(
        OpenAIChatModel(model.name, provider=OpenAIProvider(base_url=model.url, api_key=model.key)),
        instructions=texts["instruction"],
        tools=[Tool(stock, description=texts["tool:stock"])],
    )
    return (await agent.run(row["question"])).output
