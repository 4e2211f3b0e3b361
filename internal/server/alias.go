package server

import (
	"context"
	"net/http"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/domain/auth"
)

func (s *Server) aliasRoutes() []Route {
	update := auth.Need{Resource: auth.Storage, Action: auth.Update}
	const path = "/api/v1/images/{image}/aliases/{alias}"
	return []Route{
		handle(Route{Method: "PUT", Path: path, ID: "setImageAlias", Summary: "Give an image an alias, or move one to it", Need: update}, s.setAlias),
		handle(Route{Method: "DELETE", Path: path, ID: "removeImageAlias", Summary: "Remove an alias of an image", Need: update, Status: http.StatusNoContent}, s.removeAlias),
	}
}

func (s *Server) setAlias(ctx context.Context, r *Request, _ none) (reply[api.Image], error) {
	i, err := s.control.SetAlias(ctx, r.Caller, r.Arg("image"), r.Arg("alias"))
	return reply[api.Image]{Body: toImage(i), ETag: int64(i.Revision)}, err
}

func (s *Server) removeAlias(ctx context.Context, r *Request, _ none) (reply[none], error) {
	return reply[none]{}, s.control.RemoveAlias(ctx, r.Caller, r.Arg("image"), r.Arg("alias"))
}
