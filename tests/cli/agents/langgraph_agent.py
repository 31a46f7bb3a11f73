"""An agent with LangGraph."""

from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

STOCK = {"hammer": 7, "saw": 3}


async def run(texts, row, model):
    def stock(item: str) -> str:
        return f"{STOCK.get(item, 0)} pieces"

    tools = [StructuredTool.from_function(stock, description=texts["tool:stock"])]
    chat = ChatOpenAI(model=model.name, base_url=model.url, api_key=model.key).bind_tools(tools)

    async def answer(state):
        return {"messages": await chat.ainvoke([("system", texts["instruction"]), *state["messages"]])}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", tools_condition)
    graph.add_edge("tools", "answer")
    state = await graph.compile().ainvoke({"messages": [("user", row["question"])]})
    return state["messages"][-1].text
