//! Who the program is to the kernel: user, groups and capabilities, which each thread has for itself.

use memory::Addr;
use nix::libc;
use protocol::Credentials;

use super::layout::{Layout, SHARED_DATA_BYTES};
use super::{BlankChild, Program, RestoreError};

/// Offsets in the data that threads share: `struct __user_cap_header_struct`, two `__user_cap_data_struct`, groups.
const HEADER: u64 = 0;
const SETS: u64 = 16;
const GROUPS: u64 = 64;
/// Groups that there is room for.
const MAX_GROUPS: u64 = (SHARED_DATA_BYTES - GROUPS) / 4;

/// Ambient capabilities that a thread's operations have room for.
const MOST_AMBIENT: u32 = 8;

/// What a thread of the child has to do to become who the program is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Change {
    ids: Option<Ids>,
    /// Capabilities have to be set: they are not what the ids bring.
    capabilities: bool,
    /// Effective, permitted and inheritable ones.
    sets: [u64; 3],
    /// Capabilities that programs keep which it starts.
    ambient: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ids {
    user: u32,
    group: u32,
    groups: u64,
}

impl Change {
    /// From `ours` to `theirs`, if that is possible: nobody gets more than the receiver has.
    pub(super) fn between(ours: &Credentials, theirs: &Credentials) -> Result<Self, RestoreError> {
        const SET_GID: u64 = 1 << 6;
        const SET_UID: u64 = 1 << 7;
        let own_namespace = need_user_namespace(ours);
        let other = (ours.user, ours.group) != (theirs.user, theirs.group)
            || !are_same_groups(&ours.groups, &theirs.groups, own_namespace);
        let ids = Ids { user: theirs.user, group: theirs.group, groups: theirs.groups.len() as u64 };
        let needed = if other { SET_GID | SET_UID } else { 0 };
        let excessive = (theirs.capabilities | theirs.permitted | theirs.ambient) & !ours.capabilities != 0;
        let too_many = ids.groups > MAX_GROUPS || theirs.ambient.count_ones() > MOST_AMBIENT;
        if excessive || needed & !ours.capabilities != 0 || too_many {
            let (user, group, capabilities) = (theirs.user, theirs.group, theirs.capabilities);
            return Err(RestoreError::Credentials { user, group, capabilities });
        }
        let sets_are_ours = [theirs.capabilities, theirs.permitted, theirs.inheritable]
            == [ours.capabilities, ours.capabilities, ours.inheritable];
        // The first process of a user namespace has them all, and a program's PR_SET_KEEPCAPS would keep ours for it.
        let capabilities = own_namespace || other || !sets_are_ours;
        let sets = [theirs.capabilities, theirs.permitted, theirs.inheritable];
        Ok(Self { ids: other.then_some(ids), capabilities, sets, ambient: theirs.ambient })
    }

    /// Puts what [`Self::apply`] refers to into the child.
    pub(super) fn place_data(self, child: &BlankChild, theirs: &Credentials) -> Result<(), RestoreError> {
        const VERSION_3: u32 = 0x2008_0522;
        let [low, high] = [0, 32].map(|shift| self.sets.map(|set| half((set >> shift) & 0xffff_ffff)));
        let at = child.layout().shared_data();
        child.set_word(Addr(at.0 + HEADER), VERSION_3)?;
        for (offset, word) in (0..).step_by(4).zip([low, high].as_flattened()) {
            child.set_word(Addr(at.0 + SETS + offset), *word)?;
        }
        for (offset, group) in (0..).step_by(4).zip(&theirs.groups) {
            child.set_word(Addr(at.0 + GROUPS + offset), *group)?;
        }
        Ok(())
    }

    /// Takes the credentials on, in the calling thread.
    pub(super) fn apply(self, program: &mut Program, layout: Layout) {
        const PR_GET_KEEPCAPS: u64 = 7;
        const PR_SET_KEEPCAPS: u64 = 8;
        const PR_CAP_AMBIENT: u64 = 47;
        const PR_CAP_AMBIENT_RAISE: u64 = 2;
        let at = layout.shared_data();
        if let Some(ids) = self.ids {
            let [user, group] = [ids.user, ids.group].map(u64::from);
            let keep = self.capabilities.then(|| {
                let before = program.call(libc::SYS_prctl, [PR_GET_KEEPCAPS, 0, 0, 0, 0]);
                program.call(libc::SYS_prctl, [PR_SET_KEEPCAPS, 1, 0, 0, 0]);
                program.result(before)
            });
            program.call(libc::SYS_setgroups, [ids.groups, at.0 + GROUPS]);
            program.call(libc::SYS_setresgid, [group; 3]);
            program.call(libc::SYS_setresuid, [user; 3]);
            if let Some(before) = keep {
                program.call_with(libc::SYS_prctl, [PR_SET_KEEPCAPS, 0, 0, 0, 0], &[(1, before)]);
            }
        }
        if self.capabilities {
            program.call(libc::SYS_capset, [at.0 + HEADER, at.0 + SETS]);
        }
        for number in (0..u64::BITS).filter(|number| self.ambient >> number & 1 == 1) {
            program.call(libc::SYS_prctl, [PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number.into(), 0, 0]);
        }
    }

    /// Whether ids are taken on.
    pub(super) const fn is_of_ids(self) -> bool {
        self.ids.is_some()
    }
}

/// Gives up what a program may not have that this one starts; the threads that are made from here on inherit that.
pub(super) fn bound(program: &mut Program, theirs: &Credentials) {
    const PR_CAPBSET_DROP: u64 = 24;
    /// Capabilities that there are; more are refused by the kernel, without effect.
    const CAPABILITIES: u32 = 41;
    for number in (0..CAPABILITIES).filter(|number| theirs.bounding >> number & 1 == 0) {
        program.attempt(libc::SYS_prctl, [PR_CAPBSET_DROP, number.into(), 0, 0, 0]);
    }
}

/// Whether a process with these credentials can make namespaces only together with a user namespace.
pub(super) const fn need_user_namespace(ours: &Credentials) -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    ours.capabilities & SYS_ADMIN == 0
}

/// In a user namespace groups cannot be set, and those that came along are shown as the overflow group.
fn are_same_groups(ours: &[u32], theirs: &[u32], own_namespace: bool) -> bool {
    const OVERFLOW: u32 = 65534;
    let same = |(ours, theirs): (&u32, &u32)| ours == theirs || (own_namespace && *theirs == OVERFLOW);
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(same)
}

/// The lower half of a word that has nothing in its upper one.
fn half(word: u64) -> u32 {
    u32::try_from(word).unwrap_or(u32::MAX)
}

/// The receiver's own (proc(5), `/proc/self/status`).
pub(super) fn own() -> Result<Credentials, RestoreError> {
    let what = "the credentials of the receiver";
    let text =
        std::fs::read_to_string("/proc/self/status").map_err(|source| RestoreError::Host { what, source })?;
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let numbers = |name| line(name).split_whitespace().filter_map(|word| word.parse().ok());
    let effective = |name| numbers(name).nth(1).unwrap_or(u32::MAX);
    let set = |name| u64::from_str_radix(line(name).trim(), 16).unwrap_or(0);
    Ok(Credentials {
        user: effective("Uid:"),
        group: effective("Gid:"),
        groups: numbers("Groups:").collect(),
        capabilities: set("CapEff:"),
        permitted: set("CapPrm:"),
        inheritable: set("CapInh:"),
        bounding: set("CapBnd:"),
        ambient: set("CapAmb:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user: u32, capabilities: u64) -> Credentials {
        Credentials { user, group: user, capabilities, permitted: capabilities, ..Credentials::default() }
    }

    #[test]
    fn nobody_gets_more_than_the_receiver_has() {
        assert!(Change::between(&who(0, 0xff), &who(0, 0x1ff)).is_err());
        assert!(Change::between(&who(5, 0), &who(6, 0)).is_err());
        assert!(Change::between(&who(5, 0), &who(5, 0)).is_ok());
    }

    #[test]
    fn capabilities_are_set_unless_they_are_ours() {
        const ALL: u64 = 0x1ff_ffff;
        let set = |theirs| Change::between(&who(0, ALL), &theirs).map(|change| change.capabilities);
        assert!(matches!(set(who(0, ALL)), Ok(false)));
        assert!(matches!(set(who(0, 0xf)), Ok(true)));
        assert!(matches!(set(who(7, 0)), Ok(true)));
        assert!(matches!(set(who(7, 1)), Ok(true)));
    }

    #[test]
    fn what_can_be_taken_on_counts_as_well_as_what_is() {
        let dormant = Credentials { permitted: 0x100, ..who(5, 0) };
        assert!(Change::between(&who(5, 0), &dormant).is_err());
        let bold = Credentials { inheritable: 1, ..who(0, 0xff) };
        assert!(Change::between(&who(0, 0xff), &bold).is_ok_and(|change| change.capabilities));
    }

    #[test]
    fn what_a_user_namespace_brings_is_given_up() {
        let change = Change::between(&who(5, 0), &who(5, 0)).expect("the same user");
        assert_eq!(change, Change { ids: None, capabilities: true, sets: [0; 3], ambient: 0 });
    }

    #[test]
    fn groups_that_a_user_namespace_has_hidden_count_as_those_that_came_along() {
        assert!(are_same_groups(&[4, 27], &[65534, 65534], true));
        assert!(!are_same_groups(&[4, 27], &[65534, 65534], false));
        assert!(!are_same_groups(&[4, 27], &[4], true));
    }
}
