"""Many questions to a service at the same time, and their answers as they come."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from queue import SimpleQueue
from typing import TypeVar

Client = TypeVar("Client")
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Finished = SimpleQueue[Answer | None]  # None: no more will come


def dispatch(
    questions: Sequence[Asked],
    concurrency: int,
    connect: Callable[[], AbstractAsyncContextManager[Client]],
    answer: Callable[[Client, Asked], Awaitable[Answer]],
) -> Iterator[list[Answer]]:
    """Answers as they come. No more than `concurrency` questions are ahead of what the caller has stored.

    Closing the iterator ends the calls that are under way, and its thread.
    """
    if not questions:
        return
    loop, room = asyncio.new_event_loop(), asyncio.Semaphore(concurrency)
    finished: Finished[Answer] = SimpleQueue()
    work = loop.create_task(_answers(questions, room, connect, answer, finished))
    try:
        with ThreadPoolExecutor(1, "dispatch") as thread:
            done = thread.submit(_drive, loop, work, finished)
            try:
                more = True
                while more:
                    chunk, more = _drain(finished)
                    if chunk:
                        yield chunk
                        # The caller comes back when the chunk is stored: only now may other questions be asked.
                        loop.call_soon_threadsafe(_release, room, len(chunk))
            finally:
                loop.call_soon_threadsafe(work.cancel)
        done.result()
    finally:
        loop.close()


async def _answers(
    questions: Sequence[Asked],
    room: asyncio.Semaphore,
    connect: Callable[[], AbstractAsyncContextManager[Client]],
    answer: Callable[[Client, Asked], Awaitable[Answer]],
    finished: Finished[Answer],
) -> None:
    async def finish(client: Client, question: Asked) -> None:
        finished.put(await answer(client, question))

    try:
        async with connect() as client, asyncio.TaskGroup() as group:
            for question in questions:
                await room.acquire()
                group.create_task(finish(client, question))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _drive(loop: asyncio.AbstractEventLoop, work: "asyncio.Task[None]", finished: Finished[Answer]) -> None:
    try:
        loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        finished.put(None)


def _drain(finished: Finished[Answer]) -> tuple[list[Answer], bool]:
    """All that has finished by now, at least one; and whether more will come."""
    chunk, answer = [], finished.get()
    while answer is not None:
        chunk.append(answer)
        if finished.empty():
            return chunk, True
        answer = finished.get()
    return chunk, False


def _release(room: asyncio.Semaphore, places: int) -> None:
    for _ in range(places):
        room.release()
