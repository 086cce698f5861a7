/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The scope: text that an allocation's stack must touch to count. Ranges of
 * modules are set by the program on module_load, symbols by user space.
 */
struct module_slot {
	struct text_range text;
	struct text_range init_text;
};

BPF_ARRAY(scopes, struct scope, 1);

static __always_inline struct scope *current_scope(void)
{
	u32 zero = 0;

	return scopes.lookup(&zero);
}

static __always_inline int contains(struct text_range *range, u64 address)
{
	return address - range->start < range->end - range->start;
}

#if MAX_MODULES
BPF_ARRAY(module_slots, struct module_slot, MAX_MODULES);

static __always_inline int in_module_slots(u64 address)
{
	for (u32 i = 0; i < MAX_MODULES; i++) {
		u32 key = i; /* the helper takes a pointer: i must stay a register */
		struct module_slot *slot = module_slots.lookup(&key);

		if (slot && (contains(&slot->text, address) || contains(&slot->init_text, address)))
			return 1;
	}
	return 0;
}
#else
static __always_inline int in_module_slots(u64 address)
{
	return 0;
}
#endif

#if SYMBOL_WORDS
BPF_ARRAY(symbol_bits, u64, SYMBOL_WORDS);

static __always_inline int in_symbols(struct scope *scope, u64 address)
{
	u64 byte = address - scope->symbols.start;
	u32 word = byte / 64;
	u64 *bits;

	if (!contains(&scope->symbols, address))
		return 0;
	bits = symbol_bits.lookup(&word);
	return bits && (*bits >> (byte % 64) & 1);
}
#else
static __always_inline int in_symbols(struct scope *scope, u64 address)
{
	return 0;
}
#endif

/*
 * Whether a return address is in scope. The call stands before it: where a
 * function ends in a call, the return address is behind the function.
 */
static __always_inline int in_scope(struct scope *scope, u64 return_address)
{
	u64 address = return_address - 1;

	if (address - scope->low >= scope->high - scope->low)
		return 0;
	return scope->everything || in_symbols(scope, address) || in_module_slots(address);
}

/* Whether a call site is enough to say that an allocation does not count. 0: the event gives none. */
static __always_inline int is_others_call(struct scope *scope, u64 call_site)
{
	return OWN_CALLS && call_site && !in_scope(scope, call_site);
}
