package server

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/image"
	"github.com/novacron/novacron/internal/domain/node"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

func (s *Server) nodeRoutes() []Route {
	read, update := auth.Need{Resource: auth.NodeRes, Action: auth.Read}, auth.Need{Resource: auth.NodeRes, Action: auth.Update}
	return []Route{
		handle(Route{Method: "GET", Path: "/api/v1/nodes", ID: "listNodes", Summary: "List nodes", Need: read, Query: listParams(Param{"name", "With this name" + nameDoc}, Param{"state", "active or cordoned."})}, s.listNodes),
		handle(Route{Method: "GET", Path: "/api/v1/nodes/{node}", ID: "getNode", Summary: "Read a node", Need: read}, s.getNode),
		handle(Route{Method: "PATCH", Path: "/api/v1/nodes/{node}", ID: "updateNode", Summary: "Change what a node does when its host shuts down", Need: update}, s.updateNode),
		handle(Route{Method: "POST", Path: "/api/v1/nodes/{node}/cordon", ID: "cordonNode", Summary: "Give a node no new VMs", Need: update}, s.setNode(node.Cordoned)),
		handle(Route{Method: "POST", Path: "/api/v1/nodes/{node}/uncordon", ID: "uncordonNode", Summary: "Give a node new VMs again", Need: update}, s.setNode(node.Active)),
		handle(Route{Method: "POST", Path: "/api/v1/nodes/{node}/release", ID: "releaseNode", Summary: "End a node's quarantine", Need: auth.Need{Resource: auth.NodeRes, Action: auth.Admin}}, s.releaseNode),
		handle(Route{Method: "DELETE", Path: "/api/v1/nodes/{node}", ID: "removeNode", Summary: "Remove a node", Need: auth.Need{Resource: auth.NodeRes, Action: auth.Delete}, Status: http.StatusNoContent, Query: []Param{forceParam}}, s.removeNode),
		handle(Route{Method: "POST", Path: "/api/v1/node-tokens", ID: "createNodeToken", Summary: "Make a single-use token with which a host joins", Need: auth.Need{Resource: auth.NodeRes, Action: auth.Create}, Status: http.StatusCreated}, s.nodeToken),
	}
}

var forceParam = Param{"force", "true states that the node's host is off for good: it is removed with the VMs on it, which can only be deleted then. Refused while the node reports. Without it, a node with VMs is refused."}

func (s *Server) listNodes(ctx context.Context, r *Request, _ none) (reply[api.List[api.Node]], error) {
	p, err := s.pages.read(r, "nodes")
	if err != nil {
		return reply[api.List[api.Node]]{}, err
	}
	nodes, next, err := s.control.Nodes(ctx, p)
	return list(nodes, s.pages.next(r, "nodes", next), toNode), err
}

func (s *Server) getNode(ctx context.Context, r *Request, _ none) (reply[api.Node], error) {
	n, err := s.control.Node(ctx, r.Arg("node"))
	return reply[api.Node]{Body: toNode(n), ETag: int64(n.Revision)}, err
}

func (s *Server) setNode(to node.State) func(context.Context, *Request, none) (reply[api.Node], error) {
	return func(ctx context.Context, r *Request, _ none) (reply[api.Node], error) {
		revision, err := etag(r)
		if err != nil {
			return reply[api.Node]{}, err
		}
		n, err := s.control.SetNode(ctx, r.Caller, r.Arg("node"), to, revision)
		return reply[api.Node]{Body: toNode(n), ETag: int64(n.Revision)}, err
	}
}

func (s *Server) updateNode(ctx context.Context, r *Request, b api.NodePatch) (reply[api.Node], error) {
	revision, err := etag(r)
	if err != nil {
		return reply[api.Node]{}, err
	}
	if b == (api.NodePatch{}) {
		return s.getNode(ctx, r, none{})
	}
	change := node.Change{Shutdown: (*node.ShutdownPolicy)(b.ShutdownPolicy), MigrationsOut: b.MigrationsOut, MigrationsIn: b.MigrationsIn, MigrationBytesPerSecond: (*int64)(b.MigrationBytesPerSecond)}
	n, err := s.control.UpdateNode(ctx, r.Caller, r.Arg("node"), change, revision)
	return reply[api.Node]{Body: toNode(n), ETag: int64(n.Revision)}, err
}

func (s *Server) releaseNode(ctx context.Context, r *Request, _ none) (reply[api.Node], error) {
	n, err := s.control.ReleaseNode(ctx, r.Caller, r.Arg("node"))
	return reply[api.Node]{Body: toNode(n), ETag: int64(n.Revision)}, err
}

func (s *Server) removeNode(ctx context.Context, r *Request, _ none) (reply[none], error) {
	revision, err := etag(r)
	if err != nil {
		return reply[none]{}, err
	}
	force, err := boolParam(r, "force")
	if err != nil {
		return reply[none]{}, err
	}
	var n node.Node
	if force {
		n, err = s.control.RemoveNodeByForce(ctx, r.Caller, r.Arg("node"), revision)
	} else {
		n, err = s.control.SetNode(ctx, r.Caller, r.Arg("node"), node.Removed, revision)
	}
	if err == nil {
		s.agents.drop(n.ID)
	}
	return reply[none]{}, err
}

// boolParam reads a query parameter that is true, false or absent.
func boolParam(r *Request, name string) (bool, error) {
	switch got := r.URL.Query().Get(name); got {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	default:
		return false, errs.New(errs.InvalidField, "%s is true or false", name).
			At(errs.Field{Pointer: name, Message: "is neither true nor false", Got: got})
	}
}

func (s *Server) nodeToken(ctx context.Context, r *Request, _ none) (reply[api.NodeToken], error) {
	token, expires, err := s.control.JoinToken(ctx, r.Caller)
	return reply[api.NodeToken]{Body: api.NodeToken{
		Token: token, ExpiresAt: expires, Command: "novacron agent --join " + token,
	}}, err
}

func (s *Server) imageRoutes() []Route {
	read, create := auth.Need{Resource: auth.Storage, Action: auth.Read}, auth.Need{Resource: auth.Storage, Action: auth.Create}
	upload := Route{Method: "PUT", Path: "/api/v1/images/{image}/files/{role}", ID: "putImageFile", Summary: "Upload a file of an image", Need: create, stream: "the file's bytes"}
	upload.reply, upload.bytes = typeOf[api.Image](), true
	upload.serve = s.putImageFile
	return []Route{
		handle(Route{Method: "GET", Path: "/api/v1/images", ID: "listImages", Summary: "List images", Need: read, Query: listParams(Param{"name", "With this name" + nameDoc}, Param{"kind", "disk or kernel."}, Param{"state", "uploading, ready or deleting; several are parted by commas."})}, s.listImages),
		handle(Route{Method: "POST", Path: "/api/v1/images", ID: "createImage", Summary: "Create an image; its files are uploaded next", Need: create, Status: http.StatusCreated}, s.createImage),
		handle(Route{Method: "GET", Path: "/api/v1/images/{image}", ID: "getImage", Summary: "Read an image", Need: read}, s.getImage),
		handle(Route{Method: "DELETE", Path: "/api/v1/images/{image}", ID: "deleteImage", Summary: "Delete an image no VM is made from", Need: auth.Need{Resource: auth.Storage, Action: auth.Delete}, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.deleteImage),
		handle(Route{Method: "POST", Path: "/api/v1/images/{image}/fetch", ID: "fetchImageFile", Summary: "Have a server read a file of an image from a URL", Need: create, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.fetchImage),
		handle(Route{Method: "POST", Path: "/api/v1/images/{image}/capture", ID: "captureImageDisk", Summary: "Make an image's disk of one of a stopped VM", Need: create, Status: http.StatusAccepted, Query: []Param{waitParam}}, s.captureDisk),
		upload,
	}
}

func (s *Server) listImages(ctx context.Context, r *Request, _ none) (reply[api.List[api.Image]], error) {
	p, err := s.pages.read(r, "images")
	if err != nil {
		return reply[api.List[api.Image]]{}, err
	}
	images, next, err := s.control.Images(ctx, p)
	return list(images, s.pages.next(r, "images", next), toImage), err
}

func (s *Server) getImage(ctx context.Context, r *Request, _ none) (reply[api.Image], error) {
	i, err := s.control.Image(ctx, r.Arg("image"))
	return reply[api.Image]{Body: toImage(i), ETag: int64(i.Revision)}, err
}

func (s *Server) createImage(ctx context.Context, r *Request, b api.ImageCreate) (reply[api.Image], error) {
	i, err := s.control.CreateImage(ctx, r.Caller, b.Name, image.Kind(b.Type), b.Cmdline)
	return reply[api.Image]{Body: toImage(i)}, err
}

func (s *Server) deleteImage(ctx context.Context, r *Request, _ none) (reply[api.Accepted], error) {
	return s.begin(ctx, r, func() (control.Accepted, error) { return s.control.DeleteImage(ctx, r.Caller, r.Arg("image")) })
}

func (s *Server) fetchImage(ctx context.Context, r *Request, b api.ImageFetch) (reply[api.Accepted], error) {
	return s.begin(ctx, r, func() (control.Accepted, error) {
		return s.control.FetchImage(ctx, r.Caller, r.Arg("image"), flows.FetchParams{Role: image.Role(b.File), URL: b.URL, SHA256: b.SHA256})
	})
}

func (s *Server) captureDisk(ctx context.Context, r *Request, b api.ImageCapture) (reply[api.Accepted], error) {
	return s.begin(ctx, r, func() (control.Accepted, error) {
		return s.control.CaptureDisk(ctx, r.Caller, r.Arg("image"), b.VM, b.Disk)
	})
}

func (s *Server) putImageFile(w http.ResponseWriter, r *Request) error {
	sum, err := digest(r.Header.Get("Digest"))
	if err != nil {
		return err
	}
	r.park() // the bytes come as slowly as they come
	readBy(w, clock.Deadline(uploadTimeout))
	i, err := s.control.PutImageFile(r.Context(), r.Caller, r.Arg("image"), image.Role(r.Arg("role")), sum, &steady{r: r.Body, w: w})
	if err != nil {
		return err
	}
	readBy(w, time.Time{})
	writeReply(w, Route{reply: typeOf[api.Image]()}, reply[api.Image]{Body: toImage(i), ETag: int64(i.Revision)})
	return nil
}

// digest reads "sha-256=<hex>"; empty when absent.
func digest(h string) (string, error) {
	if h == "" {
		return "", nil
	}
	sum, ok := strings.CutPrefix(strings.ToLower(h), "sha-256=")
	if b, err := hex.DecodeString(sum); !ok || err != nil || len(b) != 32 {
		return "", errs.New(errs.InvalidField, "Digest is sha-256= and 64 hexadecimal digits")
	}
	return sum, nil
}

func (s *Server) tokenRoutes() []Route {
	admin := auth.Need{Resource: auth.System, Action: auth.Admin}
	return []Route{
		handle(Route{Method: "GET", Path: "/api/v1/tokens", ID: "listTokens", Summary: "List API tokens", Need: admin}, s.listTokens),
		handle(Route{Method: "POST", Path: "/api/v1/tokens", ID: "createToken", Summary: "Make an API token; it is shown once", Need: admin, Status: http.StatusCreated}, s.createToken),
		handle(Route{Method: "DELETE", Path: "/api/v1/tokens/{token}", ID: "revokeToken", Summary: "Revoke an API token at once", Need: admin, Status: http.StatusNoContent, Query: []Param{forceTokenParam}}, s.revokeToken),
		handle(Route{Method: "POST", Path: "/api/v1/setup", ID: "setup", Summary: "Spend the one-time setup token for a first administrator's token", Need: auth.Need{Resource: auth.Public}, Status: http.StatusCreated}, s.setup),
	}
}

func (s *Server) listTokens(ctx context.Context, _ *Request, _ none) (reply[api.List[api.Token]], error) {
	tokens, err := s.control.Tokens(ctx)
	return list(tokens, "", toToken), err
}

func (s *Server) createToken(ctx context.Context, r *Request, b api.TokenCreate) (reply[api.Token], error) {
	life := control.DefaultTokenLife
	if b.ExpiresInSeconds != nil {
		life = seconds(*b.ExpiresInSeconds)
	}
	k, err := s.control.CreateToken(ctx, r.Caller, b.Name, auth.Role(b.Role), life)
	return newToken(k), err
}

func newToken(k control.NewToken) reply[api.Token] {
	out := toToken(k.Token)
	out.Token = k.Secret
	return reply[api.Token]{Body: out}
}

var forceTokenParam = Param{"force", "true revokes the last administrator's token too: then the cluster is administered on a server's own machine alone. Without it, that one is refused."}

func (s *Server) revokeToken(ctx context.Context, r *Request, _ none) (reply[none], error) {
	k, err := id.Parse(r.Arg("token"))
	if err != nil {
		return reply[none]{}, err
	}
	force, err := boolParam(r, "force")
	if err != nil {
		return reply[none]{}, err
	}
	return reply[none]{}, s.control.RevokeToken(ctx, r.Caller, k, force)
}

func (s *Server) setup(ctx context.Context, r *Request, b api.Setup) (reply[api.Token], error) {
	k, err := s.control.Setup(ctx, r.Caller, b.SetupToken, b.Name)
	return newToken(k), err
}
