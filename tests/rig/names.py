"""A name server for one name, as Docker's is for the instances of a service."""

import socket
import struct
import threading
from typing import Self

POINTER_TO_QUESTION = b"\xc0\x0c"
A_RECORD, INTERNET, SECONDS_TO_LIVE = 1, 1, 1
FOUND, NOT_FOUND = 0x8180, 0x8183
HEADER, QUESTION_END = 12, 4


class Names:
    """It responds to each question of type A with `addresses`, or that the name does not exist."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        while True:
            data, client = self.socket.recvfrom(512)
            if not data:
                return
            self.socket.sendto(self.respond(data), client)

    def respond(self, data: bytes) -> bytes:
        question = data[HEADER : data.index(b"\0", HEADER) + 1 + QUESTION_END]
        found = list(self.addresses)
        counts = struct.pack(">HHHHH", FOUND if found else NOT_FOUND, 1, len(found), 0, 0)
        record = struct.pack(">HHIH", A_RECORD, INTERNET, SECONDS_TO_LIVE, 4)
        records = [POINTER_TO_QUESTION + record + socket.inet_aton(address) for address in found]
        return data[:2] + counts + question + b"".join(records)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join()
        self.socket.close()
