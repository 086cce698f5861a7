"""The table of what fails and how: functions of the kernel, and what they return when they fail.

To add a function, add its name to the block that says what it returns. It belongs here if

- it can fail in fact, before it has done anything that its caller has to undo: device_register()
  does not, since whoever calls it must put the device that it initialised, even when it failed;
- a caller that passed flags which exclude a failure can be told (__GFP_NOFAIL, SLAB_PANIC): the
  kernel's types name these parameters. mempool_alloc() does not, which never fails if it may sleep;
- it takes nothing over when it fails: d_make_root() does not, which drops the inode.

Where it returns something else on some kernels, OTHERWISE tells them apart by a parameter. What the
running kernel's types contradict is not failed: see prototypes.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Returns(Enum):
    """What a function returns when it fails."""

    NULL = "NULL"
    ERR_PTR = "ERR_PTR(-ENOMEM)"
    ERRNO = "-ENOMEM"
    ZERO = "0"


@dataclass(frozen=True, slots=True)
class Otherwise:
    """On kernels where the function has ``parameter`` it returns ``returns`` instead."""

    parameter: str
    returns: Returns


_NULL = """
kmalloc_trace kmalloc_trace_noprof kmalloc_node_trace kmalloc_order kmalloc_order_trace
kmalloc_large kmalloc_large_noprof kmalloc_large_node
__kmalloc __kmalloc_noprof __kmalloc_node __kmalloc_node_noprof
__kmalloc_cache_noprof __kmalloc_cache_node_noprof
__kmalloc_large_noprof __kmalloc_large_node_noprof
__kmalloc_track_caller __kmalloc_track_caller_noprof
__kmalloc_node_track_caller __kmalloc_node_track_caller_noprof
kmem_cache_alloc kmem_cache_alloc_noprof kmem_cache_alloc_node kmem_cache_alloc_node_noprof
kmem_cache_alloc_lru kmem_cache_alloc_lru_noprof kmem_cache_alloc_trace kmem_cache_alloc_node_trace
kvmalloc_node kvmalloc_node_noprof __kvmalloc_node_noprof
krealloc krealloc_noprof krealloc_node_align_noprof
kvrealloc kvrealloc_noprof kvrealloc_node_align_noprof
kstrdup kstrdup_noprof kstrdup_const kstrndup kstrndup_noprof kasprintf kvasprintf
kmemdup kmemdup_noprof kmemdup_nul kvmemdup bitmap_alloc bitmap_zalloc bitmap_alloc_node
bitmap_zalloc_node

vmalloc vzalloc vmalloc_node vzalloc_node vmalloc_user vmalloc_32 vmalloc_32_user vmalloc_huge
vmalloc_noprof vzalloc_noprof vmalloc_node_noprof vzalloc_node_noprof vmalloc_user_noprof
vmalloc_32_noprof vmalloc_huge_noprof vmalloc_huge_node_noprof __vmalloc __vmalloc_noprof vmap
ioremap ioremap_wc ioremap_prot memremap

__alloc_percpu __alloc_percpu_gfp pcpu_alloc_noprof
alloc_pages alloc_pages_noprof __alloc_pages __alloc_pages_noprof alloc_pages_current
__alloc_pages_nodemask alloc_pages_node_noprof folio_alloc folio_alloc_noprof __folio_alloc
__folio_alloc_noprof alloc_pages_exact alloc_pages_exact_noprof
dma_alloc_attrs dma_pool_alloc dma_pool_create dma_pool_create_node dmam_alloc_attrs

kmem_cache_create kmem_cache_create_usercopy __kmem_cache_create_args
mempool_create mempool_create_node mempool_create_noprof mempool_create_node_noprof
alloc_workqueue alloc_workqueue_noprof shrinker_alloc

devm_kmalloc devm_krealloc devm_kmemdup devm_kstrdup devm_kstrdup_const devm_kasprintf
devm_kvasprintf devm_ioremap devm_alloc_percpu __devm_alloc_percpu

__alloc_skb __netdev_alloc_skb __napi_alloc_skb napi_alloc_skb alloc_skb_with_frags skb_clone
skb_copy skb_copy_expand __pskb_copy_fclone skb_realloc_headroom
alloc_netdev_mqs alloc_etherdev_mqs metadata_dst_alloc dst_alloc sk_alloc

proc_create proc_create_data proc_mkdir proc_mkdir_data proc_mkdir_mode proc_symlink
proc_create_seq_private proc_create_single_data proc_create_net_data proc_create_net_single
register_sysctl register_sysctl_sz register_net_sysctl register_net_sysctl_sz
kobject_create_and_add kset_create_and_add cdev_alloc
platform_device_alloc input_allocate_device usb_alloc_urb iio_device_alloc
__alloc_disk_node __blk_alloc_disk zs_create_pool __seq_open_private
"""

_ERR_PTR = """
class_create __class_create device_create device_create_with_groups __root_device_register
platform_device_register_full hwmon_device_register_with_info
kthread_create_on_node kthread_create_on_cpu
memdup_user memdup_user_nul vmemdup_user strndup_user
blk_mq_init_queue __blk_mq_alloc_disk blk_mq_alloc_queue
crypto_alloc_base crypto_alloc_shash crypto_alloc_ahash crypto_alloc_skcipher crypto_alloc_aead
crypto_alloc_acomp crypto_alloc_rng crypto_alloc_akcipher
debugfs_create_dir debugfs_create_file debugfs_create_file_full
anon_inode_getfile filp_open kern_mount
devm_ioremap_resource devm_platform_ioremap_resource
"""

_ERRNO = """
misc_register __register_blkdev __register_chrdev alloc_chrdev_region register_chrdev_region
cdev_add cdev_device_add device_add device_create_file device_create_bin_file dev_set_name
driver_register __platform_driver_register __platform_driver_probe platform_device_add
platform_device_add_data platform_device_add_resources __pci_register_driver
i2c_register_driver __spi_register_driver usb_register_driver input_register_device
bus_register class_register __class_register kobject_add kobject_set_name
sysfs_create_group sysfs_create_groups sysfs_create_file_ns sysfs_create_bin_file
sysfs_create_link

register_netdev register_netdevice rtnl_link_register __rtnl_link_register
register_pernet_subsys register_pernet_device register_netdevice_notifier
genl_register_family nf_register_net_hook nf_register_net_hooks xt_register_targets
xt_register_matches proto_register sock_register sock_create_kern

request_threaded_irq devm_request_threaded_irq devm_add_action __devm_add_action
device_add_disk blk_mq_alloc_tag_set bioset_init mempool_init mempool_init_noprof
mempool_init_node sg_alloc_table

idr_alloc idr_alloc_u32 idr_alloc_cyclic ida_alloc_range radix_tree_insert __xa_alloc
__xa_alloc_cyclic __xa_insert rhashtable_init rhashtable_init_noprof
__percpu_counter_init __percpu_counter_init_many percpu_ref_init init_srcu_struct
__percpu_init_rwsem __kfifo_alloc
__cpuhp_setup_state __cpuhp_state_add_instance register_shrinker
configfs_register_subsystem configfs_register_group hwrng_register register_filesystem
crypto_register_alg crypto_register_shash crypto_register_skcipher crypto_register_ahash
crypto_register_aead crypto_register_rng crypto_register_acomp seq_open single_open
"""

_ZERO = """
__get_free_pages get_free_pages_noprof get_zeroed_page get_zeroed_page_noprof
devm_get_free_pages kmem_cache_alloc_bulk kmem_cache_alloc_bulk_noprof
"""

KNOWN: Mapping[str, Returns] = {
    name: returns
    for returns, names in (
        (Returns.NULL, _NULL),
        (Returns.ERR_PTR, _ERR_PTR),
        (Returns.ERRNO, _ERRNO),
        (Returns.ZERO, _ZERO),
    )
    for name in names.split()
}

OTHERWISE: Mapping[str, Otherwise] = {
    # commit 74fa8f9c553f ("block: pass a queue_limits argument to blk_alloc_disk") (in v6.9)
    "__blk_alloc_disk": Otherwise("lim", Returns.ERR_PTR),
}
