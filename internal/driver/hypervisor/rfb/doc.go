// Package rfb knows as much of the Remote Framebuffer protocol (RFC 6143, what VNC
// speaks) as it takes to watch over a screen: to let a viewer look and not type
// (ViewOnly), to show a picture that does not move (Serve), and to look once (Look).
//
// It is not a viewer and not a proxy that understands pictures: what a server sends
// passes unread.
package rfb

// version is what both sides say first; QEMU and every viewer of the last twenty
// years speak it.
const version = "RFB 003.008\n"

// Messages of a client (RFC 6143, section 7.5) and QEMU's own.
const (
	setPixelFormat    = 0
	setEncodings      = 2
	updateRequest     = 3
	keyEvent          = 4
	pointerEvent      = 5
	clientCutText     = 6
	qemuMessage       = 255
	qemuExtendedKey   = 0
	qemuAudio         = 1
	qemuAudioFormat   = 2
	securityNone      = 1
	rawEncoding       = 0
	frameBufferUpdate = 0
)

// mostCutText bounds what a viewer pastes.
const mostCutText = 1 << 20
