//! Which addresses may be dialled: the guard against being used as a tool inside the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EgressDenied {
    /// 127.0.0.0/8 or `::1`.
    #[error("loopback addresses are not permitted here")]
    Loopback,
    /// 169.254.0.0/16 or fe80::/10.
    #[error("link-local addresses are not permitted")]
    LinkLocal,
    /// Where clouds keep the machine's own credentials.
    #[error("addresses of cloud metadata services are not permitted")]
    Metadata,
    /// 0.0.0.0/8 or `::`.
    #[error("the unspecified address is not permitted")]
    Unspecified,
    /// 224.0.0.0/4 or ff00::/8.
    #[error("multicast addresses are not permitted")]
    Multicast,
    /// 240.0.0.0/4, the broadcast address among them.
    #[error("broadcast and reserved addresses are not permitted")]
    Reserved,
    /// Inside a network that the operator denied.
    #[error("the operator has denied this address")]
    ByOperator,
}

/// Judges addresses. Private ranges are permitted, since that is where most private registries are.
///
/// Order of judgement: unspecified, multicast and reserved addresses never; then the operator's denials; then the
/// operator's permissions; then metadata, link-local and loopback addresses are refused. A permission opens a metadata
/// address only if it names exactly that address: `169.254.0.0/16` is not meant to.
#[derive(Clone, Debug, Default)]
pub struct EgressPolicy {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    allow_loopback: bool,
}

impl EgressPolicy {
    /// A policy with the operator's permissions and denials; denials win.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>) -> Self {
        Self { allow, deny, allow_loopback: false }
    }

    /// Whether loopback addresses are permitted; they aren't unless said here.
    #[must_use]
    pub fn allow_loopback(mut self, allow: bool) -> Self {
        self.allow_loopback = allow;
        self
    }

    /// Judges one address. IPv6 forms that carry an IPv4 address (mapped, compatible, translated, NAT64, 6to4) are
    /// judged as that address as well.
    ///
    /// # Errors
    /// [`EgressDenied`] with the reason.
    pub fn judge(&self, ip: IpAddr) -> Result<(), EgressDenied> {
        match ip {
            // `::` and `::1` look like IPv4-compatible addresses but aren't.
            IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unspecified() => match embedded_v4(v6) {
                Some(v4) => {
                    if self.deny.iter().any(|net| net.contains(&ip)) {
                        return Err(EgressDenied::ByOperator);
                    }
                    self.judge_plain(v4.into())
                }
                None => self.judge_plain(ip),
            },
            ip => self.judge_plain(ip),
        }
    }

    fn judge_plain(&self, ip: IpAddr) -> Result<(), EgressDenied> {
        never(ip)?;
        if self.deny.iter().any(|net| net.contains(&ip)) {
            return Err(EgressDenied::ByOperator);
        }
        let permitted = |net: &&IpNet| net.contains(&ip);
        if is_metadata(ip) {
            let exactly =
                self.allow.iter().filter(permitted).any(|net| net.prefix_len() == net.max_prefix_len());
            return if exactly { Ok(()) } else { Err(EgressDenied::Metadata) };
        }
        if self.allow.iter().any(|net| permitted(&net)) {
            return Ok(());
        }
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if link_local {
            return Err(EgressDenied::LinkLocal);
        }
        if ip.is_loopback() && !self.allow_loopback { Err(EgressDenied::Loopback) } else { Ok(()) }
    }
}

fn never(ip: IpAddr) -> Result<(), EgressDenied> {
    match ip {
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Err(EgressDenied::Unspecified),
        IpAddr::V4(ip) if ip.octets()[0] >= 240 => Err(EgressDenied::Reserved),
        ip if ip.is_unspecified() => Err(EgressDenied::Unspecified),
        ip if ip.is_multicast() => Err(EgressDenied::Multicast),
        _ => Ok(()),
    }
}

/// Where clouds answer with credentials: AWS, GCP, Azure, OpenStack and most others share the first; then Alibaba,
/// Oracle, Azure's wire server, and the IPv6 ones of AWS and GCP.
fn is_metadata(ip: IpAddr) -> bool {
    const V4: [Ipv4Addr; 5] = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 170, 2),
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(192, 0, 0, 192),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    const V6: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    match ip {
        IpAddr::V4(ip) => V4.contains(&ip),
        IpAddr::V6(ip) => V6.contains(&ip),
    }
}

/// The IPv4 address that a router or kernel would reach through this IPv6 address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // ::/96 compatible, ::ffff:0:0/96 mapped, ::ffff:0:0:0/96 translated
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => from(high, low),
        // 64:ff9b::/96 NAT64, and 64:ff9b:1::/48 for local NAT64
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => from(high, low),
        // 2002::/16 6to4
        [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(policy: &EgressPolicy, ip: &str) -> Result<(), EgressDenied> {
        policy.judge(ip.parse().unwrap())
    }

    fn nets(text: &[&str]) -> Vec<IpNet> {
        text.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn what_nobody_keeps_a_registry_on_is_refused() {
        let table = [
            ("127.0.0.1", EgressDenied::Loopback),
            ("127.255.255.254", EgressDenied::Loopback),
            ("::1", EgressDenied::Loopback),
            ("::ffff:127.0.0.1", EgressDenied::Loopback),
            ("::127.0.0.1", EgressDenied::Loopback),
            ("::ffff:0:127.0.0.1", EgressDenied::Loopback),
            ("64:ff9b::7f00:1", EgressDenied::Loopback),
            ("64:ff9b:1::7f00:1", EgressDenied::Loopback),
            ("2002:7f00:1::", EgressDenied::Loopback),
            ("169.254.169.254", EgressDenied::Metadata),
            ("::ffff:169.254.169.254", EgressDenied::Metadata),
            ("64:ff9b::a9fe:a9fe", EgressDenied::Metadata),
            ("fd00:ec2::254", EgressDenied::Metadata),
            ("100.100.100.200", EgressDenied::Metadata),
            ("169.254.1.1", EgressDenied::LinkLocal),
            ("fe80::1", EgressDenied::LinkLocal),
            ("0.0.0.0", EgressDenied::Unspecified),
            ("0.1.2.3", EgressDenied::Unspecified),
            ("::", EgressDenied::Unspecified),
            ("::ffff:0.0.0.0", EgressDenied::Unspecified),
            ("224.0.0.1", EgressDenied::Multicast),
            ("ff02::1", EgressDenied::Multicast),
            ("255.255.255.255", EgressDenied::Reserved),
            ("240.0.0.1", EgressDenied::Reserved),
        ];
        for (ip, reason) in table {
            assert_eq!(judge(&EgressPolicy::default(), ip), Err(reason), "{ip}");
        }
    }

    #[test]
    fn public_and_private_addresses_are_permitted() {
        let policy = EgressPolicy::default();
        for ip in
            ["1.1.1.1", "10.0.0.1", "172.16.0.1", "192.168.1.50", "100.64.0.1", "fc00::1", "2606:4700::1"]
        {
            assert_eq!(judge(&policy, ip), Ok(()), "{ip}");
        }
    }

    #[test]
    fn loopback_is_permitted_only_when_said() {
        let policy = EgressPolicy::default().allow_loopback(true);
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(judge(&policy, ip), Ok(()), "{ip}");
        }
        assert_eq!(judge(&policy, "169.254.169.254"), Err(EgressDenied::Metadata));
        assert_eq!(judge(&policy, "0.0.0.0"), Err(EgressDenied::Unspecified));
    }

    #[test]
    fn the_operator_may_permit_and_denials_win() {
        let policy = EgressPolicy::new(
            nets(&["127.0.0.0/8", "169.254.0.0/16"]),
            nets(&["127.0.0.9/32", "10.0.0.0/8"]),
        );
        assert_eq!(judge(&policy, "127.0.0.1"), Ok(()));
        assert_eq!(judge(&policy, "127.0.0.9"), Err(EgressDenied::ByOperator));
        assert_eq!(judge(&policy, "::ffff:10.1.1.1"), Err(EgressDenied::ByOperator));
        assert_eq!(judge(&policy, "169.254.1.1"), Ok(()));
        assert_eq!(judge(&policy, "169.254.169.254"), Err(EgressDenied::Metadata));
        let exactly = EgressPolicy::new(nets(&["169.254.169.254/32"]), Vec::new());
        assert_eq!(judge(&exactly, "169.254.169.254"), Ok(()));
        let outer = EgressPolicy::new(Vec::new(), nets(&["64:ff9b::/96"]));
        assert_eq!(judge(&outer, "64:ff9b::101:101"), Err(EgressDenied::ByOperator));
    }
}
