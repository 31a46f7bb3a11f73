"""An agent with openai-agents, which calls OpenAI's Responses."""

from agents import Agent, OpenAIResponsesModel, RunConfig, Runner, function_tool
from openai import AsyncOpenAI

STOCK = {"hammer": 7, "saw": 3}


async def run(texts, row, model):
    def stock(item: str) -> str:
        return f"{STOCK.get(item, 0)} pieces"

    async with AsyncOpenAI(base_url=model.url, api_key=model.key) as client:
        agent = Agent(
            name="shop",
            instructions=texts["instruction"],
            tools=[function_tool(stock, description_override=texts["tool:stock"])],
            model=OpenAIResponsesModel(model.name, client),
        )
        result = await Runner.run(agent, row["question"], run_config=RunConfig(tracing_disabled=True))
    return result.final_output
