/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The process tree of a command: every process that it, or a process of it,
 * forked. The tree of one cycle is a generation; what outlives its cycle keeps
 * its own. A process is known by its tgid and not by its threads: a thread that
 * calls exec takes the id of the leader, and of io_uring's workers no event
 * tells when they are made.
 */
#ifdef ARG_SCHED_PROCESS_FORK_CHILD
#define MAX_FOLLOWED 65536
#define MAX_GENERATIONS 4097 /* cycles count from 1 */

struct following {
	u32 armed; /* the next fork of the tracer starts a tree */
	u32 generation; /* of that tree */
	u32 level; /* of the pid namespace whose ids /proc shows */
	u64 refused; /* processes for which there was no room */
};

struct process {
	u32 generation;
	u32 id; /* as /proc shows it */
};

BPF_HASH(followed, u32, struct process, MAX_FOLLOWED); /* by tgid */
BPF_ARRAY(following, struct following, 1);
BPF_ARRAY(alive, u32, MAX_GENERATIONS); /* processes of the tree that have not ended */
BPF_RINGBUF_OUTPUT(tree_ended, 1); /* only wakes */

static __always_inline int is_followed(u32 tgid)
{
	return followed.lookup(&tgid) != 0;
}
#else
static __always_inline int is_followed(u32 tgid)
{
	return 0;
}
#endif
