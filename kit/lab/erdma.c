// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * A stand-in for the eRDMA driver: the kernel's own soft-iWARP with the real driver's name and module parameters.
 *
 * Like the real one it makes the device erdma_0 when it is loaded, is "in use" while somebody holds RDMA objects, and in
 * compat mode takes 16 TCP ports (or fails to load when one of them is taken) and announces InfiniBand with 16 GIDs.
 * Unlike the real one its connections are iWARP in either mode.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/in.h>
#include <linux/net.h>
#include <net/net_namespace.h>
#include <rdma/ib_verbs.h>
#include <rdma/rdma_netlink.h>

#include "siw.h"
#include "siw_verbs.h"

#define PORTS 16

static bool compat_mode;
module_param(compat_mode, bool, 0444);
static ushort reserve_ports_base = 30608;
module_param(reserve_ports_base, ushort, 0444);
static bool legacy_mode;
module_param(legacy_mode, bool, 0444);
static bool use_zeronet;
module_param(use_zeronet, bool, 0444);
static uint vector_num = 32;
module_param(vector_num, uint, 0444);
static int default_cc;
module_param(default_cc, int, 0444);
static bool rand_qpn;
module_param(rand_qpn, bool, 0444);
static bool wwi_perf;
module_param(wwi_perf, bool, 0644);
static char *netdev = "eth1";
module_param(netdev, charp, 0444);
MODULE_PARM_DESC(netdev, "of the stand-in alone: the interface to sit on");
MODULE_VERSION("0.0-lab-stand-in");

static struct socket *port_socket[PORTS];

static int standin_node_type(void)
{
	return compat_mode ? RDMA_NODE_IB_CA : RDMA_NODE_RNIC;
}

static int standin_query_port(struct ib_device *device, u32 port, struct ib_port_attr *attr)
{
	int rv = siw_query_port(device, port, attr);

	if (compat_mode)
		attr->gid_tbl_len = PORTS;
	return rv;
}

static int standin_immutable(struct ib_device *device, u32 port, struct ib_port_immutable *immutable)
{
	int rv = siw_get_port_immutable(device, port, immutable);

	if (compat_mode)
		immutable->gid_tbl_len = PORTS;
	return rv;
}

static int standin_query_gid(struct ib_device *device, u32 port, int index, union ib_gid *gid)
{
	if (index == 0)
		return siw_query_gid(device, port, index, gid);
	memset(gid, 0, sizeof(*gid));
	return 0;
}

/* Not told by the node type: that says InfiniBand in compat mode. */
static enum rdma_link_layer standin_link_layer(struct ib_device *device, u32 port)
{
	return IB_LINK_LAYER_ETHERNET;
}

static const struct ib_device_ops standin_ops = {
	.get_link_layer = standin_link_layer,
	.get_port_immutable = standin_immutable,
	.query_gid = standin_query_gid,
	.query_port = standin_query_port,
};

/* The first to set an operation wins. */
static void standin_set_ops(struct ib_device *device, const struct ib_device_ops *others)
{
	ib_set_device_ops(device, &standin_ops);
	ib_set_device_ops(device, others);
}

/* siw's own main file, with its way into the kernel replaced by ours. */
#pragma push_macro("module_init")
#pragma push_macro("module_exit")
#undef module_init
#undef module_exit
#undef __exit		/* ours calls it where loading fails, too */
#define __exit
#undef MODULE_ALIAS_RDMA_LINK
#undef MODULE_DESCRIPTION
#define module_init(function)
#define module_exit(function)
#define MODULE_ALIAS_RDMA_LINK(name)
#define MODULE_DESCRIPTION(text)
#define rdma_link_register(ops) ((void)(ops))
#define rdma_link_unregister(ops) ((void)(ops))
#define RDMA_NODE_RNIC standin_node_type()
#define ib_set_device_ops(device, ops) standin_set_ops(device, ops)
#include "siw_main.c"
#pragma pop_macro("module_init")
#pragma pop_macro("module_exit")

static void ports_release(void)
{
	int i;

	for (i = 0; i < PORTS; i++) {
		if (port_socket[i])
			sock_release(port_socket[i]);
		port_socket[i] = NULL;
	}
}

static int ports_take(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int i, rv = 0;

	for (i = 0; i < PORTS && !rv; i++) {
		address.sin_port = htons(reserve_ports_base + i);
		rv = sock_create_kern(&init_net, AF_INET, SOCK_STREAM, IPPROTO_TCP, &port_socket[i]);
		if (rv) {
			port_socket[i] = NULL;
			break;
		}
		rv = kernel_bind(port_socket[i], (struct sockaddr *)&address, sizeof(address));
		if (!rv)
			rv = kernel_listen(port_socket[i], 1);
	}
	if (rv) {
		pr_err("erdma: port %d is taken: %d\n", reserve_ports_base + i - 1, rv);
		ports_release();
	}
	return rv;
}

static int __init standin_init(void)
{
	struct net_device *found;
	int rv;

	if (compat_mode) {
		rv = ports_take();
		if (rv)
			return rv;
	}
	rv = siw_init_module();
	if (rv)
		goto ports;
	rv = -ENODEV;
	found = dev_get_by_name(&init_net, netdev);
	if (found) {
		rv = siw_newlink("erdma_%d", found);
		dev_put(found);
	}
	if (!rv)
		return 0;
	msleep(200);	/* siw's threads must have begun before they can be stopped */
	siw_exit_module();
ports:
	ports_release();
	return rv;
}

static void standin_exit(void)
{
	siw_exit_module();
	ports_release();
}

module_init(standin_init);
module_exit(standin_exit);
MODULE_DESCRIPTION("stand-in for the eRDMA driver, on soft-iWARP");
