/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Constants that user space passes as -D. What is a property of the running
 * kernel (argument positions, member offsets) comes from its BTF: no kernel
 * struct is taken from headers, so any headers will do.
 *
 * ARG_<EVENT>_<NAME>: index of a tracepoint argument, as in TP_PROTO.
 * OFF_<STRUCT>_<MEMBER>: offset in bytes.
 * An event that this kernel lacks has no constants: its program is left out.
 */
#ifndef MAX_OUTSTANDING
#define MAX_OUTSTANDING 65536
#endif
#ifndef MAX_STACKS
#define MAX_STACKS 16384
#endif
#ifndef MAX_TOTALS
#define MAX_TOTALS 32768
#endif
/*
 * Of the allocations of one call site, one in so many has its stack walked, and the first ones in
 * each cycle; the others are booked under the call site. Only where the scope is everything, or
 * OWN_CALLS. 0: all are walked.
 */
#ifndef SAMPLE_EVERY
#define SAMPLE_EVERY 0
#endif
#define FIRST_WALKS 16
/* Whether only those count whose call site is in scope, and not all that have it on the stack. */
#ifndef OWN_CALLS
#define OWN_CALLS 0
#endif
/* Shares of call sites that user space has set; a power of two. */
#define SHARE_SLOTS 4096
/* Frames kept of a stack. The kernel walks kernel.perf_event_max_stack at most. */
#ifndef STACK_DEPTH
#define STACK_DEPTH 127
#endif
/* Counters of the filter in front of the ledger; a power of two, by MAX_OUTSTANDING. */
#ifndef FILTER_SLOTS
#define FILTER_SLOTS 262144
#endif
/*
 * Modules in scope at one time, and 64-bit words of the bitmap of symbols in scope, which has a bit
 * for each byte of text. Without the one or the other the programs are smaller, and the verifier
 * done in half the time.
 */
#ifndef MAX_MODULES
#define MAX_MODULES 0
#endif
#ifndef SYMBOL_WORDS
#define SYMBOL_WORDS 0
#endif
/* Loads of modules that are remembered. */
#define MAX_LOADS 4096
#define MODULE_NAME_BYTES 64
/* Ranges of code whose pages are not counted, and innermost frames that are held against them. */
#define MAX_PAGE_OWNERS 24
#define PAGE_OWNER_DEPTH 12
/* Objects read of a bulk call. kfree_rcu() collects up to a page of pointers. */
#define BULK_OBJECTS 512
#ifndef PAGE_BYTES
#define PAGE_BYTES 4096
#endif
/* Orders of page blocks are below this: MAX_ORDER of mm.h and 1 or 2 more. */
#define PAGE_ORDERS 12
#define PAGE_ORDERS_ROUNDED 16 /* to a power of two */
