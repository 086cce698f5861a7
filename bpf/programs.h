/* SPDX-License-Identifier: GPL-2.0-only */
/* A number for each program that walks stacks: its place in the scratch maps. */
enum program {
	PROGRAM_KMALLOC,
	PROGRAM_KMALLOC_NODE,
	PROGRAM_KMEM_CACHE_ALLOC,
	PROGRAM_KMEM_CACHE_ALLOC_NODE,
	PROGRAM_ALLOC_VMAP_AREA,
	SCRATCH_STACKS,
};

/* The events that free: kleak.capture.tracer reads free_marks by this order. */
enum free_event {
	FREE_KFREE,
	FREE_KMEM_CACHE_FREE,
	FREE_KVFREE_CALL_RCU,
	FREE_VMAP_AREA,
	FREE_EVENTS,
};

/*
 * Keeps clang from merging the two bounds of a loop into one that the verifier
 * cannot follow, and from unrolling the loop.
 */
#define keep_bound(i) asm volatile("" : "+r"(i))

typedef struct bpf_raw_tracepoint_args raw_tp;

static __always_inline u64 read_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline u32 read_u32(u64 address)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}
