// SPDX-License-Identifier: GPL-2.0-only
/* Leaks that do not happen in the context of the task that loads the module. */
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

#include "corpus.h"
#include "renamed.h"

static int times;
static DECLARE_COMPLETION(done);

static noinline void leak_in_context(void)
{
	for (int i = 0; i < times; i++) {
		void *p = kmalloc(150, GFP_ATOMIC);

		forget(p);
	}
	complete(&done);
	barrier();
}

static void leak_in_timer(struct timer_list *timer)
{
	leak_in_context();
	barrier();
}

static DEFINE_TIMER(timer, leak_in_timer);

static int start_timer(void)
{
	times = three;
	mod_timer(&timer, jiffies + 2);
	wait_for_completion(&done);
	return 0;
}

static void stop_timer(void)
{
	timer_delete_sync(&timer);
}

static void leak_in_work(struct work_struct *work)
{
	leak_in_context();
	barrier();
}

static DECLARE_DELAYED_WORK(work, leak_in_work);

static int start_work(void)
{
	times = five;
	schedule_delayed_work(&work, 2);
	wait_for_completion(&done);
	return 0;
}

static void stop_work(void)
{
	cancel_delayed_work_sync(&work);
}

static void leak_in_softirq(struct tasklet_struct *tasklet)
{
	leak_in_context();
	barrier();
}

static DECLARE_TASKLET(softirq, leak_in_softirq);

static int start_softirq(void)
{
	times = seven;
	tasklet_schedule(&softirq);
	wait_for_completion(&done);
	return 0;
}

static void stop_softirq(void)
{
	tasklet_kill(&softirq);
}

static void leak_in_interrupt(struct irq_work *work)
{
	leak_in_context();
	barrier();
}

static struct irq_work interrupt = IRQ_WORK_INIT_HARD(leak_in_interrupt);

static int start_interrupt(void)
{
	times = two;
	irq_work_queue(&interrupt);
	wait_for_completion(&done);
	return 0;
}

static void stop_interrupt(void)
{
	irq_work_sync(&interrupt);
}

static int leak_in_kthread(void *data)
{
	leak_in_context();
	while (!kthread_should_stop())
		msleep(10);
	return 0;
}

static struct task_struct *thread;

static int start_kthread(void)
{
	times = three;
	thread = kthread_run(leak_in_kthread, NULL, "corpus");
	if (IS_ERR(thread))
		return PTR_ERR(thread);
	wait_for_completion(&done);
	return 0;
}

static void stop_kthread(void)
{
	kthread_stop(thread);
}

const struct corpus_case context_cases[] = { { "timer", start_timer, stop_timer },
					     { "work", start_work, stop_work },
					     { "softirq", start_softirq, stop_softirq },
					     { "interrupt", start_interrupt, stop_interrupt },
					     { "kthread", start_kthread, stop_kthread },
					     {} };
