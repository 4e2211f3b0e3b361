# The guest of the driver's conformance tests: one boot sector that behaves like
# a small machine with a serial console and, if it is polite, a power button.
#
#   prints "guest ready", echoes what is typed, answers a carriage return with a
#   prompt, powers off when "!" is typed, and when the power button is pressed,
#   unless the byte at `deaf` is not 0.
#
# COM1 is at 0x3f8. The firmware has put the ACPI registers of the q35 chipset at
# 0x600: status, enable (+2), control (+4).
.code16
.globl _start
_start:
	jmp	begin
	.org	4
deaf:	.byte	0
flood:	.byte	0
begin:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	cmpb	$0, deaf
	jne	1f
	mov	$0x602, %dx		# let the power button be seen
	in	%dx, %ax
	or	$0x100, %ax
	out	%ax, %dx
1:	mov	$hello, %si
	call	print
	cmpb	$0, flood
	jne	pour
loop:
	mov	$0x3fd, %dx		# anything typed?
	in	%dx, %al
	test	$1, %al
	jz	2f
	mov	$0x3f8, %dx
	in	%dx, %al
	cmp	$'!', %al
	je	off
	push	%ax
	call	put
	pop	%ax
	cmp	$'\r', %al
	jne	2f
	mov	$prompt, %si
	call	print
2:	cmpb	$0, deaf
	jne	3f
	mov	$0x600, %dx		# the power button?
	in	%dx, %ax
	test	$0x100, %ax
	jnz	off
3:	sti				# sleep until the next timer tick or key
	hlt
	cli
	jmp	loop
off:
	mov	$0x604, %dx		# soft off
	mov	$0x2000, %ax
	out	%ax, %dx
4:	hlt
	jmp	4b
pour:					# says the same line for ever
	mov	$line, %si
	call	print
	jmp	pour
print:
	lodsb
	test	%al, %al
	jz	5f
	call	put
	jmp	print
5:	ret
put:
	push	%ax
	mov	$0x3fd, %dx
6:	in	%dx, %al
	test	$0x20, %al
	jz	6b
	pop	%ax
	mov	$0x3f8, %dx
	out	%al, %dx
	ret
hello:	.asciz	"\r\nguest ready\r\n# "
prompt:	.asciz	"\n# "
line:	.asciz	"all work and no play makes a dull guest\r\n"
	.org	510
	.word	0xaa55
