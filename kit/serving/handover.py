"""The hand-over check: one long prompt through the proxy must hit in the decoder and give the right words."""

from __future__ import annotations

import json
from dataclasses import dataclass

from kit.errors import CommandError, ParseError
from kit.serving.ask import ask
from kit.serving.evidence import log_since, look, moved
from kit.serving.launch import Deployment
from kit.serving.parts import Part
from kit.sites import Pair

_ANSWER_S = 120.0
_WORDS = ("rain", "stone", "river", "lamp", "seven", "north", "glass", "quiet", "bread", "wheel", "paper", "green")


@dataclass(frozen=True)
class Handed:
    """What became of the one prompt: the decoder's hits of its tokens, and whether its words were the right ones.

    ``same_text`` compares with what the prefiller itself gives for the prompt, alone; it means something in float32
    only, and is None elsewhere.
    """

    prompt_tokens: int
    hit_tokens: int
    same_text: bool | None

    @property
    def ok(self) -> bool:
        return self.hit_tokens > 0 and self.same_text is not False

    def __str__(self) -> str:
        text = {True: ", the same words as without a hand-over", False: ", OTHER words than without a hand-over",
                None: ""}[self.same_text]
        return f"{self.hit_tokens} of {self.prompt_tokens} prompt tokens came from the prefiller{text}"


@dataclass(frozen=True)
class Answer:
    """What came back. ``text`` is all of it; ``tokens`` counts the streamed pieces where nothing else counts them."""

    text: str
    tokens: int


def hand_over(pair: Pair, deployment: Deployment, *, words: int = 500, tokens: int = 12) -> Handed | None:
    """Send one long prompt through the front and look where its KV came from; None for an aggregated stack.

    Raises CommandError where no answer comes, and ParseError where it is none.
    """
    stack = deployment.wiring.stack
    before = look(pair, deployment)
    answer = complete(pair, deployment, deployment.front, prompt(words, seed=0), tokens=tokens)
    if stack.kind == "aggregated":
        return None
    after = look(pair, deployment)
    told = moved(deployment, before, after, log_since(pair, deployment, before))
    same = None
    if deployment.wiring.serving.dtype == "float32":
        alone = complete(pair, deployment, deployment.part("prefiller"), prompt(words, seed=0), tokens=tokens)
        same = answer.text == alone.text
    return Handed(told.prompt_tokens or 0, told.hit_tokens or 0, same)


def prompt(words: int, *, seed: int) -> str:
    """A fixed text that no other seed begins alike."""
    return " ".join([f"note {seed}", *(_WORDS[(seed + index * index) % len(_WORDS)] for index in range(words))])


def complete(pair: Pair, deployment: Deployment, part: Part, text: str, *, tokens: int) -> Answer:
    """A greedy completion asked of one part, on its own node. Raises CommandError for anything but an answer."""
    wiring = deployment.wiring
    body = {"model": wiring.serving.served_name, "prompt": text, "max_tokens": tokens, "temperature": 0,
            "ignore_eos": True, "stream": False}
    if part.role == "prefiller" and wiring.stack.kind == "store":
        # LMCache 0.3.9's producer dies of a request without these (LMCache #1342, #2145).
        body["kv_transfer_params"] = {"ret_first_tok": True, "disagg_spec": {
            "req_id": "kit-reference", "receiver_host": wiring.decode.address, "receiver_init_port": [0],
            "receiver_alloc_port": [0]}}
    answer = ask(pair[part.end].host, f"{part.url}/v1/completions", post=body, seconds=_ANSWER_S)
    if not answer.ok:
        raise CommandError(f"the {part.role} answered {answer.status}", node=part.end, command=str(part.command),
                           output=answer.body, remedy="read the logs of prefiller and decoder")
    return read_answer(answer.body)


def read_answer(body: str) -> Answer:
    """Of a completion, or of an event stream: LMCache's proxy streams whether it was asked to or not.

    Raises ParseError for anything else, such as an error that came with status 200.
    """
    try:
        if not body.lstrip().startswith("data:"):
            said = json.loads(body)
            return Answer(str(said["choices"][0]["text"]), int(said["usage"]["completion_tokens"]))
        pieces = [json.loads(line.removeprefix("data:")) for line in body.splitlines()
                  if line.startswith("data:") and "[DONE]" not in line]
        texts = [str(piece["choices"][0]["text"]) for piece in pieces if piece["choices"] or "usage" not in piece]
        return Answer("".join(texts), len(texts))
    except (ValueError, LookupError, TypeError) as error:
        raise ParseError("this is no completion", line=body[:200]) from error
