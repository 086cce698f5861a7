/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Follows a process tree: include/trace/events/sched.h. A fork is announced by
 * the parent before the child runs, an exit by the task itself, so the number
 * of tasks alive is 0 only once the whole tree has ended.
 */
#ifdef ARG_SCHED_PROCESS_FORK_CHILD
static __always_inline void follow(u32 task, u32 generation)
{
	struct tree *tree = trees.lookup(&generation);

	if (!tree)
		return;
	if (followed.update(&task, &generation)) {
		u32 zero = 0;
		struct following *state = following.lookup(&zero);

		if (state)
			__sync_fetch_and_add(&state->refused, 1);
		return;
	}
	__sync_fetch_and_add(&tree->alive, 1);
	tree->started = 1;
}

int on_sched_process_fork(raw_tp *ctx)
{
	u32 child = read_u32(ctx->args[ARG_SCHED_PROCESS_FORK_CHILD] + OFF_TASK_STRUCT_PID);
	u64 current_task = bpf_get_current_pid_tgid();
	u32 parent = current_task, zero = 0, *generation;
	struct scope *scope = current_scope();
	struct following *state;

	generation = followed.lookup(&parent);
	if (generation) {
		follow(child, *generation);
		return 0;
	}
	state = following.lookup(&zero);
	if (scope && state && state->armed && current_task >> 32 == scope->tracer_tgid) {
		state->armed = 0;
		follow(child, state->generation);
	}
	return 0;
}

int on_sched_process_exit(raw_tp *ctx)
{
	u32 task = bpf_get_current_pid_tgid(), generation, *found;
	struct tree *tree;

	found = followed.lookup(&task);
	if (!found)
		return 0;
	generation = *found;
	tree = trees.lookup(&generation);
	if (!tree || followed.delete(&task))
		return 0;
	__sync_fetch_and_add(&tree->alive, -1);
	if (!tree->alive)
		tree_ended.ringbuf_output(&generation, sizeof(generation), 0);
	return 0;
}
#endif
