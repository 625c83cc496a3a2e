"""Tokens as they come, and at the end how sure the answer is."""

from bitcal_integrations.langchain import ChatBitCal, get_confidence

chat = ChatBitCal(model="bitcal-tiny", weights="qint4", max_tokens=64)
question = "Tom has 12 pens. Tom buys 30 more. How many pens does Tom have in the end?"

answer = None
for chunk in chat.stream(question):
    print(chunk.text, end="", flush=True)
    answer = chunk if answer is None else answer + chunk

confidence = get_confidence(answer)
print(f"\n\nright with probability {confidence.value:.2f}", end="")
print(f", by the profile {confidence.profile}" if confidence.calibrated else "")
print(f"{answer.usage_metadata['output_tokens']} tokens, {answer.response_metadata['model_name']}")
