"""The program that verifies a trail without us, against the vectors of the Rust one."""

import json
from pathlib import Path

from audit_chain import START, broken, event_hash

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "audit_events.json"


def events():
    read = json.loads(VECTORS.read_text())
    return [{**event, "previous_hash": bytes.fromhex(event["previous_hash"]), "hash": bytes.fromhex(event["hash"])}
            for event in read]


def test_hashes_are_those_of_the_vectors():
    for event in events():
        assert event_hash(event) == event["hash"], event["number"]


def test_vectors_are_a_whole_chain():
    chain = events()
    assert chain[0]["previous_hash"] == START
    assert broken(chain) == []


def test_what_is_done_to_a_chain_shows():
    chain = events()
    assert broken(chain[:1] + chain[2:]) == [(3, "gap")]
    changed = [{**chain[0], "session_role": "nobody"}, *chain[1:]]
    assert broken(changed) == [(1, "changed")]
    redone = {**chain[0], "session_role": "nobody"}
    redone["hash"] = event_hash(redone)
    assert broken([redone, *chain[1:]]) == [(2, "forked")]
