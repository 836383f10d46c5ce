// Package damage tests what the finished program does on a damaged disk: its data
// directory is filled with mail, the process is killed, and the directory is
// damaged in many ways. It may start with everything that it has acknowledged, or
// refuse and say why; it must never start and silently lack mail, and "bsmtpd spool
// verify" must have said beforehand which it will be.
package damage
