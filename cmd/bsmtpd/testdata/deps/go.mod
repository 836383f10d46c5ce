module bsmtpd

go 1.26
