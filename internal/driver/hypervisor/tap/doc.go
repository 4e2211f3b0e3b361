// Package tap joins guests to Linux bridges of their host.
//
// A tap device is made by the agent, given to the guest's hypervisor as an open
// file, and never made to persist: it is there for as long as somebody has it open,
// and gone with the guest, whoever was killed and when. Nothing has to clean it up.
//
// # Filters
//
// Before a device joins its bridge, a chain of nftables at its ingress, in a table of
// the node's own, lets through what has the guest's own address for a source, and drops
// the rest: other addresses, VLAN tags, and frames for the bridge itself (spanning tree
// and its kin). Its policy is to drop. A chain that cannot be made is a guest that is
// not started. Newer kernels keep a chain when its device is gone, older ones remove
// it; so chains are removed by name, and one that is not there is no error.
//
// Whoever reloads the host's firewall may take the chains away. Missing finds that out,
// and Disconnect takes a guest off the network whose chain cannot be made again.
//
// # What it does not do
//
// It makes no bridge, gives no addresses to the host, and asks nobody who may use a
// bridge: that is decided above.
package tap
