/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Follows a process tree: include/trace/events/sched.h. A fork is announced by
 * the parent before the child runs, the end of a process by a thread of it, so
 * the number of processes alive is 0 only once the whole tree has ended.
 */
#ifdef ARG_SCHED_PROCESS_FORK_CHILD
static __always_inline void follow(u64 task, struct following *state, u32 generation)
{
	u32 tgid = read_u32(task + OFF_TASK_STRUCT_TGID), *number = alive.lookup(&generation);
	u64 pid = read_u64(task + OFF_TASK_STRUCT_THREAD_PID);
	struct process process = {
		.generation = generation,
		.id = read_u32(pid + OFF_PID_NUMBERS + state->level * SIZE_UPID + OFF_UPID_NR),
	};

	if (!number)
		return;
	if (followed.update(&tgid, &process)) {
		__sync_fetch_and_add(&state->refused, 1);
		return;
	}
	__sync_fetch_and_add(number, 1);
}

int on_sched_process_fork(raw_tp *ctx)
{
	u64 child = ctx->args[ARG_SCHED_PROCESS_FORK_CHILD];
	u32 parent = bpf_get_current_pid_tgid() >> 32, zero = 0;
	struct following *state = following.lookup(&zero);
	struct scope *scope = current_scope();
	struct process *process;

	if (!state || !scope)
		return 0;
	if (read_u32(child + OFF_TASK_STRUCT_TGID) == parent)
		return 0; /* a thread */
	process = followed.lookup(&parent);
	if (process) {
		follow(child, state, process->generation);
	} else if (state->armed && parent == scope->tracer_tgid) {
		state->armed = 0;
		follow(child, state, state->generation);
	}
	return 0;
}

/* Of each thread; do_exit() has taken it out of signal->live before. */
int on_sched_process_exit(raw_tp *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32, generation, *number;
	struct process *found;
	u64 signal;

	found = followed.lookup(&tgid);
	if (!found)
		return 0;
	signal = read_u64(ctx->args[ARG_SCHED_PROCESS_EXIT_P] + OFF_TASK_STRUCT_SIGNAL);
	if (read_u32(signal + OFF_SIGNAL_STRUCT_LIVE))
		return 0;
	generation = found->generation;
	number = alive.lookup(&generation);
	/* Of threads that exit at once, each may find none alive: one deletes. */
	if (!number || followed.delete(&tgid))
		return 0;
	__sync_fetch_and_add(number, -1);
	if (!*number)
		tree_ended.ringbuf_output(&generation, sizeof(generation), 0);
	return 0;
}
#endif
