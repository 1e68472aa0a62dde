"""The hub without a cluster: whatever is lost on the way is measured once more, and nothing is measured for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kneepoint.search.workers.ray_hub import OVER, REPLACED, UNKNOWN, Hub

Story = Callable[[Hub], Coroutine[Any, Any, None]]


def told(story: Story, silence: float = 60.0) -> None:
    async def main() -> None:
        await story(Hub(silence))

    asyncio.run(main())


def test_an_assignment_goes_to_one_worker_and_its_outcome_to_the_search() -> None:
    async def story(hub: Hub) -> None:
        await hub.stir()
        await hub.push("a", b"A")
        assert await hub.next("one", "1", 0.0) == UNKNOWN
        await hub.join("one", "1", "node")
        assert await hub.next("one", "1", 0.0) == ("a", b"A")
        assert await hub.beat("one", "1")
        await hub.ended("one", "1", "a", b"done")
        await hub.ended("one", "1", "a", b"done again")
        delivery = await hub.drain(0.0)
        assert (delivery.outcomes, delivery.lost) == ([b"done"], [])
        assert [(worker.name, worker.state, worker.done) for worker in delivery.workers] == [("one", "idle", 1)]
        assert await hub.next("one", "1", 0.0) is None
        await hub.stop()
        assert await hub.next("one", "1", 5.0) == OVER
        assert not await hub.beat("one", "1")

    told(story)


def test_a_worker_that_is_not_heard_of_is_lost_with_what_it_measures() -> None:
    async def story(hub: Hub) -> None:
        await hub.join("one", "1", "node")
        await hub.push("a", b"A")
        await hub.next("one", "1", 0.0)
        delivery = await hub.drain(5.0)
        assert delivery.lost == [("a", "its worker was not heard of for 0.3 s (on node)")]
        assert not await hub.beat("one", "1")
        await hub.ended("one", "1", "a", b"too late")
        assert (await hub.drain(0.0)).outcomes == []

    told(story, silence=0.3)


def test_two_lives_of_one_worker_do_not_take_each_other_s_work() -> None:
    async def story(hub: Hub) -> None:
        for name in "abc":
            await hub.push(name, name.encode())
        await hub.join("one", "first", "far")
        assert await hub.next("one", "first", 0.0) == ("a", b"a")
        await hub.join("one", "second", "near")  # its link was cut, and Tune started another
        assert await hub.next("one", "second", 0.0) == ("b", b"b")
        assert not await hub.beat("one", "first")
        assert await hub.next("one", "first", 0.0) == REPLACED
        await hub.ended("one", "first", "b", b"of the wrong one")
        await hub.ended("one", "second", "b", b"right")
        delivery = await hub.drain(0.0)
        assert delivery.outcomes == [b"right"]
        assert delivery.lost == [("a", "its worker was started anew (on far)")]

    told(story)


def test_an_answer_that_was_lost_on_the_way_loses_no_assignment() -> None:
    async def story(hub: Hub) -> None:
        await hub.push("a", b"A")
        await hub.push("b", b"B")
        await hub.join("one", "1", "node")
        await hub.next("one", "1", 0.0)
        assert await hub.next("one", "1", 0.0) == ("b", b"B")  # the call is repeated by Ray
        assert (await hub.drain(0.0)).lost == [("a", "its worker never got it (on node)")]

    told(story)


@pytest.mark.parametrize("known", [set(), {"students/a.json"}])
def test_files_go_to_nodes_that_lack_them(known: set[str]) -> None:
    async def story(hub: Hub) -> None:
        await hub.offer("students/a.json", ["reference"])
        assert await hub.files(known) == ({} if known else {"students/a.json": ["reference"]})

    told(story)


def test_another_hub_is_told_apart() -> None:
    epochs = []

    async def story(hub: Hub) -> None:
        epochs.append((await hub.drain(0.0)).epoch)

    told(story)
    told(story)
    assert epochs[0] != epochs[1]
