package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/novacron/novacron/client"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func newVMVNC(a *app) *cobra.Command {
	var listen string
	var viewOnly, once bool
	cmd := leaf("vnc NAME", "Open a local port for a VNC viewer", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		return a.serveScreen(cmd.Context(), c, args[0], listen, viewOnly, once)
	})
	cmd.Long = `Open a port of this machine at which any VNC viewer finds the screen of a virtual
machine, until Ctrl-C.

Nobody else's viewer can use the port from outside of this machine, unless --listen
says so; there is no password. One viewer at a time may type: with --view-only
several look on.`
	cmd.Example = `  novacron vm vnc web
  novacron vm vnc web --view-only --listen 127.0.0.1:5901`
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "the `address` to open; port 0 takes one that is free")
	cmd.Flags().BoolVar(&viewOnly, "view-only", false, "leave out keys, pointer and clipboard")
	cmd.Flags().BoolVar(&once, "once", false, "end with the first viewer")
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}

// serveScreen hands each viewer that comes on to the VM's screen.
func (a *app) serveScreen(ctx context.Context, c *client.Client, vm, listen string, viewOnly, once bool) error {
	// asked before anything is opened: a VM without a screen is said now
	if _, err := c.VMs.Screenshot(ctx, vm); err != nil {
		return err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", listen)
	if err != nil {
		return errs.New(errs.HostFailure, "%s cannot be opened", listen).Because(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer func() { _ = l.Close() }()
	fmt.Fprintf(a.err, "the screen of %s is at %s; Ctrl-C ends\n", vm, l.Addr())
	var viewers sync.WaitGroup
	defer viewers.Wait()
	for {
		viewer, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return errs.New(errs.HostFailure, "no viewer can come any more").Because(err)
		}
		serve := func() {
			if err := join(ctx, c, vm, viewer, viewOnly); err != nil && ctx.Err() == nil {
				fmt.Fprintf(a.err, "a viewer was sent away: %s\n", errs.As(err).Message)
			}
		}
		if once {
			serve()
			return nil
		}
		viewers.Go(serve)
	}
}

// join copies both ways between a viewer and the screen until either ends.
func join(ctx context.Context, c *client.Client, vm string, viewer net.Conn, viewOnly bool) error {
	defer func() { _ = viewer.Close() }()
	screen, err := c.VMs.Screen(ctx, vm, viewOnly)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = viewer.Close() })
	defer stop()
	done := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(screen, viewer)
		done <- struct{}{}
	}()
	go func() {
		_, _ = io.Copy(viewer, screen)
		done <- struct{}{}
	}()
	<-done
	_ = viewer.Close()
	_ = screen.Close()
	<-done
	return nil
}

func newVMScreenshot(a *app) *cobra.Command {
	var file string
	cmd := leaf("screenshot NAME", "Save what is on the screen as a PNG file", names("NAME"), func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(cmd)
		if err != nil {
			return err
		}
		picture, err := c.VMs.Screenshot(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if file == "-" {
			_, err = a.out.Write(picture)
			return err
		}
		if file == "" {
			file = args[0] + ".png"
		}
		if err := os.WriteFile(file, picture, 0o600); err != nil {
			return errs.New(errs.HostFailure, "%s cannot be written", file).Because(err)
		}
		fmt.Fprintf(a.err, "wrote %s\n", file)
		return nil
	})
	cmd.Example = "  novacron vm screenshot web --file web.png"
	cmd.Flags().StringVarP(&file, "file", "f", "", "the `file` to write, - for standard output; the VM's name with .png by default")
	cmd.ValidArgsFunction = a.completeVMs
	return cmd
}
