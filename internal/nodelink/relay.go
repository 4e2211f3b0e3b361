package nodelink

import (
	"github.com/novacron/novacron/internal/vocab/gen"
	"github.com/novacron/novacron/internal/vocab/id"
)

// Where two nodes do not reach each other, a server joins two connections that they open
// to it. It does so for a ticket that the control plane has given the two for work under
// way. What the nodes say to each other there is under TLS of their own: the server carries
// bytes that it cannot read.

// MethodRelay is the uplink's call by which a node asks for a relay to another.
const MethodRelay = "relay"

// Relay asks that a server join the calling node with another one's door or offer.
type Relay struct {
	NodeEpoch gen.NodeEpoch `json:"node_epoch"`
	// Peer is the other node, and Address where it said that it lets the caller in.
	Peer    id.ID  `json:"peer"`
	Address string `json:"address"`
	// Ticket is what the caller will show the other node there.
	Ticket string `json:"ticket"`
}

// RelayReply answers Relay: the other node has come already.
type RelayReply struct {
	// Ticket opens the bulk connection that is joined with the other node's, once.
	Ticket string `json:"ticket"`
}

// AdmitRelay has a node open a bulk connection to the server that asks, and take it for one
// that has come to its door or offer at an address. Who is at its other end has to prove
// itself there as anybody does.
type AdmitRelay struct {
	From    id.ID  `json:"from"`
	Address string `json:"address"`
	Ticket  string `json:"ticket"`
}

// Method implements Command.
func (*AdmitRelay) Method() string { return "admit_relay" }

// OfferProbe has a node let another one in for nothing but to see that it reaches it; the
// answer is an ImageOffer.
type OfferProbe struct {
	To     id.ID  `json:"to"`
	Ticket string `json:"ticket"`
}

// Method implements Command.
func (*OfferProbe) Method() string { return "offer_probe" }

// ProbeNode asks whether a node reaches another one that offers it a probe.
type ProbeNode struct {
	Source ImageSource `json:"source"`
}

// Method implements Command.
func (*ProbeNode) Method() string { return "probe_node" }

// ProbeReply answers ProbeNode.
type ProbeReply struct {
	// Direct: it does, without a server between them.
	Direct bool `json:"direct"`
	// Why not.
	Why string `json:"why,omitempty"`
}
