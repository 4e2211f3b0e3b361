package nodelink

import "github.com/novacron/novacron/internal/vocab/id"

// ImageSource is a node that offers a file to one other, once, for a while.
type ImageSource struct {
	Node    id.ID  `json:"node"`
	Address string `json:"address"`
	Ticket  string `json:"ticket"`
	// Direct: it is not worth a relay, since who asks has the file itself.
	Direct bool `json:"direct,omitempty"`
}

// OfferImage has a node offer a file of its cache to one other node, once: to
// whoever shows that node's certificate and the ticket, under ALPNPeer.
type OfferImage struct {
	SHA256 string `json:"sha256"`
	To     id.ID  `json:"to"`
	Ticket string `json:"ticket"`
}

// Method implements Command.
func (*OfferImage) Method() string { return "offer_image" }

// ImageOffer answers OfferImage.
type ImageOffer struct {
	Address string `json:"address"`
}
