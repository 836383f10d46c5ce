package api

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"bsmtpd/api/wire"
)

func (s *Server) sources(context.Context, *struct{}) (*body[wire.Sources], error) {
	addrs := s.deps.Sources()
	out := wire.Sources{Addresses: []string{}, Snippets: []wire.Snippet{}}
	for _, a := range addrs {
		out.Addresses = append(out.Addresses, a.String())
	}
	if len(addrs) > 0 {
		out.Snippets = snippets(addrs)
	}
	return &body[wire.Sources]{out}, nil
}

// snippets are what customers put into their servers and firewalls so that mail
// comes from these addresses and from nowhere else (B13), and so that their own
// SPF check does not refuse it: for them every sender's mail comes from here.
func snippets(addrs []netip.Addr) []wire.Snippet {
	var all, v4, v6, quoted, prefixes []string
	for _, a := range addrs {
		s := a.String()
		all, quoted = append(all, s), append(quoted, `"`+s+`"`)
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()).String())
		if a.Is4() {
			v4 = append(v4, s)
		} else {
			v6 = append(v6, s)
		}
	}
	var postfix, nft, cisco strings.Builder
	for _, p := range prefixes {
		fmt.Fprintf(&postfix, "%s\tOK\n", p)
	}
	if len(v4) > 0 {
		fmt.Fprintf(&nft, "nft add rule inet filter input ip saddr { %s } tcp dport 25 accept\n", strings.Join(v4, ", "))
	}
	if len(v6) > 0 {
		fmt.Fprintf(&nft, "nft add rule inet filter input ip6 saddr { %s } tcp dport 25 accept\n", strings.Join(v6, ", "))
	}
	nft.WriteString("nft add rule inet filter input tcp dport 25 drop\n")
	for _, a := range v4 {
		fmt.Fprintf(&cisco, "access-list 125 permit tcp host %s any eq smtp\n", a)
	}
	cisco.WriteString("access-list 125 deny tcp any any eq smtp\naccess-list 125 permit ip any any\n")
	for i, a := range v6 {
		if i == 0 {
			cisco.WriteString("ipv6 access-list BSMTP6\n")
		}
		fmt.Fprintf(&cisco, " permit tcp host %s any eq smtp\n", a)
	}
	if len(v6) > 0 {
		cisco.WriteString(" deny tcp any any eq smtp\n permit ipv6 any any\n")
	}
	list := strings.Join(quoted, ",")
	return []wire.Snippet{
		{For: "postfix", Text: "# /etc/postfix/bsmtp_clients.cidr\n" + postfix.String() +
			"0.0.0.0/0\tREJECT mail for this domain comes through its MX\n::/0\tREJECT mail for this domain comes through its MX\n" +
			"# /etc/postfix/main.cf\nsmtpd_client_restrictions = permit_mynetworks, permit_sasl_authenticated, check_client_access cidr:/etc/postfix/bsmtp_clients.cidr\n"},
		{For: "exchange", Text: "# Exchange Management Shell\nNew-ReceiveConnector -Name \"From provider\" -Usage Custom -TransportRole FrontendTransport -Bindings 0.0.0.0:25 -RemoteIPRanges " + list +
			" -PermissionGroups AnonymousUsers\nAdd-IPAllowListEntry -IPAddress " + strings.Join(all, "\nAdd-IPAllowListEntry -IPAddress ") + "\n"},
		{For: "microsoft365", Text: "# Exchange Online PowerShell\nNew-InboundConnector -Name \"From provider\" -ConnectorType Partner -SenderDomains * -SenderIPAddresses " + list +
			" -RestrictDomainsToIPAddresses $true -RequireTls $false -EFSkipLastIP $true\nSet-HostedConnectionFilterPolicy -Identity Default -IPAllowList @{Add=" + list + "}\n"},
		{For: "nftables", Text: nft.String()},
		{For: "cisco", Text: cisco.String()},
		{For: "spf", Text: "# Your server sees these addresses for mail of every sender, so a check of SPF there\n" +
			"# would refuse good mail. It was checked at the MX: leave these addresses out.\n" +
			"# policyd-spf: skip_addresses = " + strings.Join(prefixes, ",") + "\n" +
			"# rspamd, local.d/options.inc: local_addrs = [" + list + "];\n" +
			"# SpamAssassin: trusted_networks " + strings.Join(all, " ") + "\n"},
	}
}
