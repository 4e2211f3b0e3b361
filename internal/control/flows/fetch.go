package flows

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// fetchImage brings the image's files into the node's cache. It has no undo: the
// cache is the node's own to empty.
func fetchImage(ctx context.Context, r *run) (any, error) {
	v, err := usable(ctx, r)
	if err != nil {
		return nil, err
	}
	return nil, fetch(ctx, r, v, imagesOf(v), r.Step)
}

// imagesOf lists the images that a VM stands on.
func imagesOf(v vm.View) (images []id.ID) {
	if v.Intent.ImageID != nil {
		images = append(images, *v.Intent.ImageID)
	}
	for _, cd := range []*vm.CD{v.Intent.SeedImage, v.Intent.CDROM} {
		if cd != nil {
			images = append(images, cd.ID)
		}
	}
	for _, d := range v.Volumes {
		if d.ImageID != nil {
			images = append(images, *d.ImageID)
		}
	}
	return images
}

// imagesMoved are the images that a VM needs on a node that it moves to: without those that
// only disks in a storage pool were made of, which stand on none.
func imagesMoved(v vm.View) []id.ID {
	whole, stood := map[id.ID]bool{}, map[id.ID]bool{}
	for _, d := range v.Volumes {
		if d.ImageID != nil {
			whole[*d.ImageID] = whole[*d.ImageID] || d.PoolID != nil
			stood[*d.ImageID] = stood[*d.ImageID] || d.PoolID == nil
		}
	}
	for _, cd := range []*vm.CD{v.Intent.SeedImage, v.Intent.CDROM} {
		if cd != nil {
			stood[cd.ID] = true
		}
	}
	return slices.DeleteFunc(imagesOf(v), func(i id.ID) bool { return whole[i] && !stood[i] })
}

// fetch brings the files of images into the cache of the VM's node, by a command
// of the given step. What is missing comes from another node that has it, else
// from this server; the node checks the hash of whatever comes, and goes on to the
// next place.
func fetch(ctx context.Context, r *run, v vm.View, images []id.ID, step string) error {
	files, err := filesOf(ctx, r, images)
	if err != nil || len(files) == 0 {
		return err
	}
	look := &nodelink.EnsureImages{Header: head(r, v, v.Intent.Epoch, fetchTimeout), Files: files, Look: true}
	look.Step = step + ": look"
	var there nodelink.EnsureReply
	if call(ctx, r, v, look, &there) == nil {
		files = slices.DeleteFunc(files, func(f nodelink.ImageFile) bool { return !slices.Contains(there.Missing, f.SHA256) })
	}
	if len(files) == 0 {
		return nil
	}
	cmd := &nodelink.EnsureImages{
		Header: head(r, v, v.Intent.Epoch, fetchTimeout), Files: files,
		Tickets: map[string]string{}, Sources: map[string][]nodelink.ImageSource{},
	}
	cmd.Step = step
	for _, f := range files {
		sources, err := sourcesOf(ctx, r, v, f.SHA256, cmd.Tickets)
		if err != nil {
			return err
		}
		cmd.Sources[f.SHA256] = sources
	}
	return call(ctx, r, v, cmd, nil)
}

// sourcesOf are the nodes that offer a file, besides this server, whose ticket it adds to the
// others if it has the file. If it has not, and a node that offers it is not reached, a relay
// is worth its while.
func sourcesOf(ctx context.Context, r *run, v vm.View, sum string, tickets map[string]string) ([]nodelink.ImageSource, error) {
	ticket, err := r.Env.Files.Ticket(sum)
	here := err == nil
	if here {
		tickets[sum] = ticket
	} else if !errs.Is(err, errs.NotFound) { // a node may have the file that this server lacks
		return nil, err
	}
	out := offers(ctx, r, v, sum)
	for i := range out {
		if out[i].Direct = here; here {
			continue
		}
		if err := mayRelay(ctx, r, out[i].Ticket, *v.Intent.NodeID, out[i].Node); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func filesOf(ctx context.Context, r *run, images []id.ID) (files []nodelink.ImageFile, err error) {
	for _, which := range images {
		img, err := r.Env.Store.ImageByID(ctx, which)
		if err != nil {
			return nil, err
		}
		for _, f := range img.Files {
			if w := wireFile(f); !slices.Contains(files, w) {
				files = append(files, w)
			}
		}
	}
	return files, nil
}

// Offers of other nodes.
const (
	// maxOffers is how many nodes are asked, for one that does not keep its word.
	maxOffers = 2
	// offerTimeout bounds the asking of one: the server has the file too.
	offerTimeout = 3 * time.Second
)

// offers asks nodes whose VMs stand on a file to give it to the VM's node. That
// none does is no failure.
func offers(ctx context.Context, r *run, v vm.View, sum string) (out []nodelink.ImageSource) {
	holders, err := r.Env.Store.ImageSumNodes(ctx, sum, *v.Intent.NodeID)
	if err != nil {
		return nil
	}
	for _, holder := range holders {
		if len(out) == maxOffers {
			break
		}
		s := nodelink.ImageSource{Node: holder, Ticket: rand.Text()}
		var offer nodelink.ImageOffer
		ask, cancel := context.WithTimeout(ctx, offerTimeout)
		err := r.Env.Nodes.Call(ask, holder, &nodelink.OfferImage{SHA256: sum, To: *v.Intent.NodeID, Ticket: s.Ticket}, &offer)
		cancel()
		if s.Address = offer.Address; err == nil && s.Address != "" {
			out = append(out, s)
		}
	}
	return out
}
