"""Registered buffers of a ring, by the kernel's memory and its debug information.

bufs_by_drgn.py VMLINUX: says what it is, then answers each line with one of its own:
    list PID FD    address and length of every slot, in bytes
    sum PID FD     the sum of the addresses
Layouts: io_uring/rsrc.h and include/linux/io_uring_types.h of Linux 6.12 and 7.2.
"""

import struct
import sys

import drgn
from drgn.helpers.linux.fs import fget
from drgn.helpers.linux.pid import find_task


def start(vmlinux):
    prog = drgn.Program()
    prog.set_kernel()
    prog.load_debug_info([vmlinux])
    return prog


class Rings:
    def __init__(self, prog):
        self.prog = prog
        ubuf = prog.type("struct io_mapped_ubuf")
        members = {member.name: member for member in ubuf.members}
        # Both in one read.
        self.first = members["ubuf"].offset
        if members["len"].offset != self.first + 8:
            raise LookupError("struct io_mapped_ubuf is laid out in another way")
        self.range = struct.Struct("<QI")

    def bufs(self, pid, fd):
        prog = self.prog
        file = fget(find_task(prog, pid), fd)
        ctx = drgn.cast("struct io_ring_ctx *", file.private_data)
        if prog.type("struct io_ring_ctx").has_member("buf_table"):
            slots, nr = ctx.buf_table.nodes, ctx.buf_table.nr
            to_ubuf = drgn.offsetof(prog.type("struct io_rsrc_node"), "buf")
        else:
            slots, nr = ctx.user_bufs, ctx.nr_user_bufs
            to_ubuf = None
        nr = nr.value_()
        # All slots in one read.
        pointers = struct.unpack(f"<{nr}Q", prog.read(slots.value_(), 8 * nr))
        if to_ubuf is not None:
            pointers = [prog.read_u64(node + to_ubuf) for node in pointers]
        return [self.range.unpack(prog.read(ubuf + self.first, 12)) for ubuf in pointers]


def main():
    rings = Rings(start(sys.argv[1]))
    print(f"drgn {drgn.__version__}", flush=True)
    for line in sys.stdin:
        what, pid, fd = line.split()
        bufs = rings.bufs(int(pid), int(fd))
        if what == "list":
            print(*(f"{addr} {length}" for addr, length in bufs), sep=",", flush=True)
        else:
            print(sum(addr for addr, _ in bufs), flush=True)


main()
