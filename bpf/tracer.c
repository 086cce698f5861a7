/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Run by the tracer itself, and attached to nothing: says who it is to the other
 * programs. In a pid namespace it knows itself by another id.
 */
int identify_tracer(raw_tp *ctx)
{
	u64 pid = read_u64(bpf_get_current_task() + OFF_TASK_STRUCT_THREAD_PID);
	struct scope *scope = current_scope();

	if (!scope)
		return 0;
	scope->tracer_tgid = bpf_get_current_pid_tgid() >> 32;
	scope->tracer_level = read_u32(pid + OFF_PID_LEVEL);
	return 0;
}
