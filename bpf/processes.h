/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The process tree of a command: every task that it, or a task of it, forked.
 * The tree of one cycle is a generation; what outlives its cycle keeps its own.
 */
#ifdef ARG_SCHED_PROCESS_FORK_CHILD
#define MAX_FOLLOWED 65536
#define MAX_GENERATIONS 4097 /* cycles count from 1 */

struct following {
	u32 armed; /* the next fork of the tracer starts a tree */
	u32 generation; /* of that tree */
	u64 refused; /* tasks for which there was no room */
};

struct tree {
	u32 alive; /* tasks that have not exited */
	u32 started;
};

BPF_HASH(followed, u32, u32, MAX_FOLLOWED); /* id of a task, to its generation */
BPF_ARRAY(following, struct following, 1);
BPF_ARRAY(trees, struct tree, MAX_GENERATIONS);
BPF_RINGBUF_OUTPUT(tree_ended, 1); /* only wakes */

static __always_inline int is_followed(u32 task)
{
	return followed.lookup(&task) != 0;
}
#else
static __always_inline int is_followed(u32 task)
{
	return 0;
}
#endif
