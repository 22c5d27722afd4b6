"""Which replica serves a stream: the idle one, by the client's shares, and where the instruction is cached."""

from spark_llm.serving.core import Call, ModelRef
from spark_llm.serving.protocol import StreamHeader
from spark_llm.serving.worker.placement import Placement


class Replica:
    """A dispatch without a process."""

    def __init__(self):
        self.streams = self.starts = 0

    def start(self):
        self.starts += 1


def header(query, instruction="Is it good?", pool="default"):
    return StreamHeader("app", query, pool, ModelRef(), Call("c", instruction))


def placed(count=2):
    replicas = [Replica() for _ in range(count)]
    placement = Placement(replicas)

    def end(query, replica, served=0.0):
        placement.end(replicas[replica], f"app/{query}", served)

    return lambda *named: replicas.index(placement.place(header(*named))), end


def test_streams_go_to_the_replica_with_the_fewest():
    place, end = placed(3)
    assert sorted(place("1") for _ in range(3)) == [0, 1, 2]
    end("1", 1)
    assert place("2", "another question") == 1


def test_a_query_goes_where_its_instruction_was_asked_before_unless_others_are_there():
    place, end = placed()
    homes = {text: place(text, text) for text in ("good?", "bad?")}
    assert sorted(homes.values()) == [0, 1]
    for text, replica in homes.items():
        end(text, replica)
    for text, replica in homes.items():
        assert place("new " + text, text) == replica
        end("new " + text, replica)
    busy = place("one", "bad?")
    assert busy == homes["bad?"]
    assert place("two", "bad?") != busy, "no replica idles for the sake of a prefix"


def test_prefixes_of_another_pool_are_not_cached():
    place, end = placed()
    end("1", place("1"))
    assert place("2") == 0
    end("2", 0)
    place("3", "Is it good?", "other")
    end("3", 0)
    assert place("4") == 0


def test_a_query_takes_its_share_of_every_replica():
    place, end = placed()
    assert sorted(place("1") for _ in range(2)) == [0, 1]
    assert sorted(place("2") for _ in range(2)) == [0, 1]
    end("1", 0, served=50_000)
    end("2", 1, served=50_000)
    assert place("3") == 0
    assert place("4") == 1
    assert place("1") == 1, "the other replica owes it service, though both are as busy"
    end("1", 1)
    assert place("2") == 0
