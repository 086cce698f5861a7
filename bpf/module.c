/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The scope of a module is set here, on module_load, before a line of its
 * init runs, and taken away on module_free, after its exit has returned.
 */
#ifdef OFF_MODULE_NAME
struct module_name {
	char name[MODULE_NAME_BYTES];
};

/* Names of the modules in scope, to their place in module_slots. */
BPF_HASH(module_targets, struct module_name, u32, MAX_MODULES);
BPF_ARRAY(loads, struct load, MAX_LOADS);
BPF_ARRAY(load_of_slot, u32, MAX_MODULES);

static __always_inline u32 *find_target(u64 module, struct module_name *name)
{
	bpf_probe_read_kernel_str(name->name, sizeof(name->name),
				  (void *)(module + OFF_MODULE_NAME));
	return module_targets.lookup(name);
}

static __always_inline void read_range(struct text_range *range, u64 base_at, u64 size_at)
{
	range->start = read_u64(base_at);
	range->end = range->start + read_u32(size_at);
}

static __always_inline void widen(struct scope *scope, struct text_range *range)
{
	if (range->start == range->end)
		return;
	if (!scope->high || range->start < scope->low)
		scope->low = range->start;
	if (range->end > scope->high)
		scope->high = range->end;
}

int on_module_load(raw_tp *ctx)
{
	u64 module = ctx->args[ARG_MODULE_LOAD_MOD];
	struct scope *scope = current_scope();
	struct module_name name = {};
	struct module_slot *slot;
	struct load *load;
	u32 *target, index, number;

	target = find_target(module, &name);
	if (!target || !scope)
		return 0;
	number = *target;
	slot = module_slots.lookup(&number);
	index = scope->loads;
	load = loads.lookup(&index);
	if (!slot || !load) {
		count(COUNT_LOADS_FULL);
		return 0;
	}
	read_range(&slot->text, module + OFF_MODULE_TEXT_BASE, module + OFF_MODULE_TEXT_SIZE);
	read_range(&slot->init_text, module + OFF_MODULE_INIT_BASE, module + OFF_MODULE_INIT_SIZE);
	load_of_slot.update(&number, &index);
	__builtin_memcpy(load->name, name.name, sizeof(load->name));
	load->text = slot->text;
	load->init_text = slot->init_text;
	load->loaded_ns = bpf_ktime_get_ns();
	load->slot = number;
	widen(scope, &slot->text);
	widen(scope, &slot->init_text);
	scope->loads += 1;
	scope->cycle += 1;
	load->cycle = scope->cycle;
	scope->counting = 1;
	return 0;
}

int on_module_free(raw_tp *ctx)
{
	u64 module = ctx->args[ARG_MODULE_FREE_MOD];
	struct scope *scope = current_scope();
	struct module_slot *slot, none = {};
	struct module_name name = {};
	struct load *load;
	u32 *target, *index, number;

	target = find_target(module, &name);
	if (!target || !scope)
		return 0;
	number = *target;
	index = load_of_slot.lookup(&number);
	if (!index)
		return 0;
	load = loads.lookup(index);
	slot = module_slots.lookup(&number);
	if (!load || !slot)
		return 0;
	load->unloaded_ns = bpf_ktime_get_ns();
	*slot = none;
	/* What is still in scope: symbols, or other modules that are loaded. */
	scope->counting = scope->symbols.end > 0;
	for (u32 i = 0; i < MAX_MODULES; i++) {
		u32 key = i;

		slot = module_slots.lookup(&key);
		if (slot && slot->text.start)
			scope->counting = 1;
	}
	if (!scope->counting)
		scope->low = scope->high = 0;
	return 0;
}
#endif
