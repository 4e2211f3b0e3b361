package server

import (
	"bytes"
	"context"
	"image/png"
	"io"
	"net/http"

	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/errs"
)

const vncPath = "/api/v1/vms/{vm}/vnc"

func (s *Server) screenRoutes() []Route {
	return []Route{
		raw(Route{
			Method: "GET", Path: vncPath, ID: "openVMScreen", Summary: "Attach to a VM's screen (WebSocket): the VNC protocol, RFC 6143, without a password",
			Need: auth.Need{Resource: auth.VM, Action: auth.Execute}, stream: "binary messages both ways",
			Query: []Param{{"view_only", "true: look on; keys, pointer and clipboard are left out. Others may be there, too."}},
		}, s.vmScreen),
		raw(Route{
			Method: "GET", Path: "/api/v1/vms/{vm}/screenshot", ID: "readVMScreenshot", Summary: "What is on a VM's screen now, as PNG",
			Need: auth.Need{Resource: auth.VM, Action: auth.Read}, stream: "image/png",
		}, s.vmScreenshot),
	}
}

// vmScreen joins a WebSocket to the screen.
func (s *Server) vmScreen(w http.ResponseWriter, r *Request) error {
	if err := upgrades(r.Request); err != nil {
		return err
	}
	viewOnly := r.URL.Query().Get("view_only") == "true"
	return s.joinWebSocket(w, r, "vm.screen", func(ticket string, v target) nodelink.Command {
		return &nodelink.OpenDisplay{VM: v.VM, Epoch: v.Epoch, Ticket: ticket, ViewOnly: viewOnly}
	})
}

// mostPicture bounds a picture that a node sends.
const mostPicture = 64 << 20

// vmScreenshot sends one picture. It is decoded once before, so that nothing else
// that a node may send is handed on as one.
func (s *Server) vmScreenshot(w http.ResponseWriter, r *Request) error {
	conn, err := s.openStream(r.Context(), r, func(ticket string, v target) nodelink.Command {
		return &nodelink.OpenScreenshot{VM: v.VM, Epoch: v.Epoch, Ticket: ticket}
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = conn.Close() })
	defer stop()
	picture, err := io.ReadAll(io.LimitReader(conn, mostPicture))
	if err == nil {
		_, err = png.DecodeConfig(bytes.NewReader(picture))
	}
	if err != nil {
		return errs.New(errs.HostFailure, "the node sent no picture").Because(err)
	}
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("Cache-Control", "no-store")
	_, err = w.Write(picture)
	return ignore(err)
}
