# A guest that prints a dot at each tick of its clock, 18 times a second: a witness of
# when it executed, and when not. "!" typed powers it off, at the next tick.
.code16
.globl _start
_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	mov	$hello, %si
1:	lodsb
	test	%al, %al
	jz	2f
	call	put
	jmp	1b
2:	mov	0x46c, %bx		# the BIOS counts ticks there
3:	sti
	hlt
	cli
	mov	0x46c, %ax
	cmp	%ax, %bx
	je	3b
	mov	%ax, %bx
	mov	$'.', %al
	call	put
	mov	$0x3fd, %dx		# anything typed?
	in	%dx, %al
	test	$1, %al
	jz	3b
	mov	$0x3f8, %dx
	in	%dx, %al
	cmp	$'!', %al
	jne	3b
	mov	$0x604, %dx		# soft off
	mov	$0x2000, %ax
	out	%ax, %dx
	hlt
put:
	push	%ax
	mov	$0x3fd, %dx
4:	in	%dx, %al
	test	$0x20, %al
	jz	4b
	pop	%ax
	mov	$0x3f8, %dx
	out	%al, %dx
	ret
hello:	.asciz	"guest ready\n"
	.org	510
	.word	0xaa55
