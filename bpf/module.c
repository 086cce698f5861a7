/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The scope of a module is set here, on module_load, before a line of its
 * init runs, and taken away on module_free, after its exit has returned. Each
 * load begins a cycle. Loads and unloads of one module come one after the
 * other, those of several modules may come at the same time on several CPUs.
 */
#ifdef OFF_MODULE_NAME
struct module_name {
	char name[MODULE_NAME_BYTES];
};

/*
 * Loads of modules that are not in scope: their code may be on stacks that are. Keys have
 * complements of addresses, for kmemleak: see ledger_key().
 */
struct visit_key {
	u64 module;
	u64 loaded_ns;
};

BPF_TABLE("hash", struct visit_key, struct load, visits, MAX_VISITS);
BPF_TABLE("hash", u64, u64, visiting, MAX_VISITS); /* loaded_ns, by module */

static __always_inline void begin_visit(u64 module, struct module_name *name,
					struct text_range *text, struct text_range *init_text,
					u32 cycle)
{
	struct visit_key key = { .module = ~module, .loaded_ns = bpf_ktime_get_ns() };
	struct load visit = {
		.text = *text,
		.init_text = *init_text,
		.loaded_ns = key.loaded_ns,
		.cycle = cycle,
	};

	__builtin_memcpy(visit.name, name->name, sizeof(visit.name));
	visits.update(&key, &visit);
	visiting.update(&key.module, &key.loaded_ns);
}

static __always_inline void end_visit(u64 module)
{
	struct visit_key key = { .module = ~module };
	u64 *loaded_ns = visiting.lookup(&key.module);
	struct load *visit;

	if (!loaded_ns) /* it was loaded before kleak came */
		return;
	key.loaded_ns = *loaded_ns;
	visiting.delete(&key.module);
	visit = visits.lookup(&key);
	if (visit)
		visit->unloaded_ns = bpf_ktime_get_ns();
}

static __always_inline void read_name(struct module_name *name, u64 module)
{
	bpf_probe_read_kernel_str(name->name, sizeof(name->name),
				  (void *)(module + OFF_MODULE_NAME));
}

static __always_inline void read_range(struct text_range *range, u64 base_at, u64 size_at)
{
	range->start = read_u64(base_at);
	range->end = range->start + read_u32(size_at);
}

#if MAX_MODULES
/* Names of the modules in scope, to their place in module_slots. */
BPF_HASH(module_targets, struct module_name, u32, MAX_MODULES);
BPF_ARRAY(loads, struct load, MAX_LOADS);
BPF_HASH(claimed_loads, u32, u32, MAX_LOADS);
BPF_ARRAY(load_of_slot, u32, MAX_MODULES); /* index in loads, plus 1; 0: not loaded */

static __always_inline void widen(struct scope *scope, struct text_range *range)
{
	if (range->start == range->end)
		return;
	if (!scope->high || range->start < scope->low)
		scope->low = range->start;
	if (range->end > scope->high)
		scope->high = range->end;
}

static __always_inline int covers(struct scope *scope, struct text_range *range)
{
	return range->start == range->end ||
	       (scope->low <= range->start && range->end <= scope->high);
}

/*
 * Returns the place in loads for the load that begins: bcc's compiler has no
 * atomic addition that tells the sum.
 */
static __always_inline u32 claim_load(struct scope *scope)
{
	u32 first = scope->loads, number = 0;

	for (u32 i = 0; i < MAX_MODULES; i++) {
		u32 index = first + i;

		if (!claimed_loads.insert(&index, &number))
			return index;
	}
	return MAX_LOADS;
}

static __always_inline int overlap(struct text_range *one, struct text_range *other)
{
	return one->start < other->end && other->start < one->end;
}

/* The memory of init text is given back after init: what loads into it is no more in scope. */
static __always_inline void retire_init_text(struct text_range *text, struct text_range *init_text)
{
	for (u32 i = 0; i < MAX_MODULES; i++) {
		u32 key = i;
		struct module_slot *slot = module_slots.lookup(&key);

		if (slot &&
		    (overlap(&slot->init_text, text) || overlap(&slot->init_text, init_text)))
			slot->init_text.start = slot->init_text.end = 0;
	}
}

/* Returns 0 if the module is not in scope. */
static __always_inline int begin_load(struct scope *scope, struct module_name *name,
				      struct text_range *text, struct text_range *init_text)
{
	struct module_slot *slot;
	struct load *load;
	u32 *target, index, number, next;

	retire_init_text(text, init_text);
	target = module_targets.lookup(name);
	if (!target)
		return 0;
	number = *target;
	slot = module_slots.lookup(&number);
	index = claim_load(scope);
	load = loads.lookup(&index);
	if (!slot || !load) {
		count(COUNT_LOADS_FULL);
		return 1;
	}
	slot->text = *text;
	slot->init_text = *init_text;
	next = index + 1;
	load_of_slot.update(&number, &next);
	__builtin_memcpy(load->name, name->name, sizeof(load->name));
	load->text = *text;
	load->init_text = *init_text;
	load->loaded_ns = bpf_ktime_get_ns();
	load->unloaded_ns = 0;
	load->cycle = next;
	/* More than once: another CPU may widen it too, and write over it. */
	for (u32 i = 0; i < MAX_MODULES; i++) {
		widen(scope, text);
		widen(scope, init_text);
	}
	__sync_fetch_and_add(&scope->loads, 1);
	__sync_fetch_and_add(&scope->cycle, 1);
	scope->counting = 1;
	return 1;
}

/* Returns 0 if the module is not in scope. */
static __always_inline int end_load(struct scope *scope, struct module_name *name)
{
	struct module_slot *slot, none = {};
	struct load *load;
	u32 *target, *next, index, number;

	target = module_targets.lookup(name);
	if (!target)
		return 0;
	number = *target;
	next = load_of_slot.lookup(&number);
	if (!next || !*next) /* it was loaded before kleak came */
		return 1;
	index = *next - 1;
	*next = 0;
	load = loads.lookup(&index);
	slot = module_slots.lookup(&number);
	if (!load || !slot)
		return 1;
	if (!covers(scope, &slot->text) || !covers(scope, &slot->init_text))
		count(COUNT_LOADS_OUTSIDE);
	load->unloaded_ns = bpf_ktime_get_ns();
	*slot = none;
#if MAX_MODULES == 1
	/* With more, one may be loaded on another CPU just now. */
	scope->counting = 0;
	scope->low = scope->high = 0;
#endif
	return 1;
}

#ifdef ARG_MODULE_GET_MOD
/* References to modules in scope, by who took them or gave them back. */
struct reference_key {
	u64 caller;
	u32 target; /* as module_targets has it */
	u32 given_back;
};

BPF_TABLE("hash", struct reference_key, u64, references, MAX_REFERENCES);

static __always_inline int count_reference(u64 module, u64 caller, u32 given_back)
{
	struct reference_key key = { .caller = caller, .given_back = given_back };
	struct module_name name = {};
	u64 *number, one = 1;
	u32 *target;

	read_name(&name, module);
	target = module_targets.lookup(&name);
	if (!target)
		return 0;
	key.target = *target;
	number = references.lookup(&key);
	if (number)
		__sync_fetch_and_add(number, 1);
	else
		references.update(&key, &one);
	return 0;
}

int on_module_get(raw_tp *ctx)
{
	return count_reference(ctx->args[ARG_MODULE_GET_MOD], ctx->args[ARG_MODULE_GET_IP], 0);
}

int on_module_put(raw_tp *ctx)
{
	return count_reference(ctx->args[ARG_MODULE_PUT_MOD], ctx->args[ARG_MODULE_PUT_IP], 1);
}
#endif
#else
static __always_inline int begin_load(struct scope *scope, struct module_name *name,
				      struct text_range *text, struct text_range *init_text)
{
	return 0;
}

static __always_inline int end_load(struct scope *scope, struct module_name *name)
{
	return 0;
}
#endif

int on_module_load(raw_tp *ctx)
{
	u64 module = ctx->args[ARG_MODULE_LOAD_MOD];
	struct scope *scope = current_scope();
	struct text_range text, init_text;
	struct module_name name = {};

	if (!scope)
		return 0;
	read_range(&text, module + OFF_MODULE_TEXT_BASE, module + OFF_MODULE_TEXT_SIZE);
	read_range(&init_text, module + OFF_MODULE_INIT_BASE, module + OFF_MODULE_INIT_SIZE);
	read_name(&name, module);
	if (!begin_load(scope, &name, &text, &init_text))
		begin_visit(module, &name, &text, &init_text, scope->cycle);
	return 0;
}

int on_module_free(raw_tp *ctx)
{
	u64 module = ctx->args[ARG_MODULE_FREE_MOD];
	struct scope *scope = current_scope();
	struct module_name name = {};

	if (!scope)
		return 0;
	read_name(&name, module);
	if (!end_load(scope, &name))
		end_visit(module);
	return 0;
}
#endif
