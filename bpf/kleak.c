/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tracer's programs. kleak.bpf_source turns this file and what it includes
 * into the one text that bcc compiles; bcc attaches nothing by itself.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/errno.h>

#include "config.h"
#include "record.h"
#include "programs.h"
#include "counters.h"
#include "scope.h"
#include "prefilter.h"
#include "stacks.h"
#include "processes.h"
#include "sampling.h"
#include "ledger.h"

#include "tracer.c"
#include "slab.c"
#include "slab_bulk.c"
#include "slab_nolock.c"
#include "krealloc.c"
#include "rcu.c"
#include "skb.c"
#include "vmalloc.c"
#include "pages.c"
#include "percpu.c"
#include "dma.c"
#include "dma_pool.c"
#include "module.c"
#include "processes.c"
