//! Argon2id: the one way passwords are kept and compared.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version};

use crate::scram;

/// The most memory that a stored hash may ask for, in KiB: what `permits` multiplies by.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 64;

/// What a new hash costs: 19 MiB and two passes, the usual recommendation for Argon2id. The verifier that is kept beside
/// it has a cost of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    memory_kib: u32,
    passes: u32,
    iterations: u32,
}

impl Cost {
    pub(crate) const RECOMMENDED: Self = Self {
        memory_kib: Params::DEFAULT_M_COST,
        passes: Params::DEFAULT_T_COST,
        iterations: scram::ITERATIONS,
    };
    /// As little as the algorithm allows: tests of everything but the cost.
    #[cfg(test)]
    pub(crate) const TEST: Self = Self { memory_kib: 8, passes: 1, iterations: 4096 };

    /// Of a verifier.
    pub(crate) fn iterations(self) -> u32 {
        self.iterations
    }

    fn hasher(self) -> Result<Argon2<'static>, String> {
        let params = Params::new(self.memory_kib, self.passes, 1, None)
            .map_err(|error| format!("Argon2 refuses its parameters: {error}"))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// A stored password: a PHC string that has been read and found to be one of ours.
#[derive(Clone, Debug)]
pub(crate) struct Stored(PasswordHash);

impl Stored {
    /// Hashes `password` with a fresh salt.
    pub(crate) fn new(password: &[u8], cost: Cost) -> Result<Self, String> {
        let mut salt = [0_u8; 16];
        getrandom::fill(&mut salt).map_err(no_random)?;
        Self::salted(password, salt, cost)
    }

    /// A hash that no password is meant to match: what unknown names are compared with, so that they take as long.
    pub(crate) fn nobody(cost: Cost) -> Result<Self, String> {
        // Made up, not computed: a start need not take the memory and the time of a login.
        let (mut salt, mut hash) = ([0_u8; 16], [0_u8; 32]);
        for bytes in [&mut salt[..], &mut hash[..]] {
            getrandom::fill(bytes).map_err(no_random)?;
        }
        let salt = Salt::new(&salt).map_err(|error| error.to_string())?;
        let hash = Output::new(&hash).map_err(|error| error.to_string())?;
        let params = ParamsString::try_from(cost.hasher()?.params()).map_err(|error| error.to_string())?;
        Ok(Self(PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params,
            salt: Some(salt),
            hash: Some(hash),
        }))
    }

    fn salted(password: &[u8], salt: [u8; 16], cost: Cost) -> Result<Self, String> {
        let salt = Salt::new(&salt).map_err(|error| error.to_string())?;
        argon2::password_hash::PasswordHasher::hash_password_with_salt(&cost.hasher()?, password, &salt)
            .map(Self)
            .map_err(|error| format!("the password cannot be hashed: {error}"))
    }

    /// Reads a PHC string. Refuses other algorithms, and costs that would let the file starve the server.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let hash = PasswordHash::new(text).map_err(|_| "is not a PHC string ($argon2id$…)".to_owned())?;
        if hash.algorithm.as_str() != Algorithm::Argon2id.as_str() {
            return Err(format!("uses {}; only argon2id is accepted", hash.algorithm.as_str()));
        }
        let params = Params::try_from(&hash).map_err(|error| format!("has unusable parameters: {error}"))?;
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
            return Err(format!("asks for more than {MEMORY_KIB_MAX} KiB or {PASSES_MAX} passes"));
        }
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err("lacks its salt or its hash".to_owned());
        }
        Ok(Self(hash))
    }

    /// Whether `password` is the one. Takes the time and memory that the stored string names.
    pub(crate) fn matches(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &self.0).is_ok()
    }

    /// The PHC string.
    pub(crate) fn to_phc(&self) -> String {
        self.0.to_string()
    }
}

fn no_random(error: getrandom::Error) -> String {
    format!("the system's random numbers are not to be had: {error}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn nobodys_password_takes_what_any_other_takes_and_is_none() {
        let shape = |stored: &Stored| {
            let text = stored.to_phc();
            (text.len(), text.rsplitn(3, '$').last().map(str::to_owned))
        };
        let nobody = Stored::nobody(Cost::TEST).unwrap();
        assert_eq!(shape(&nobody), shape(&Stored::new(b"nobody", Cost::TEST).unwrap()));
        let nobody = Stored::parse(&nobody.to_phc()).unwrap();
        assert!(!nobody.matches(b"nobody") && !nobody.matches(b""));
    }

    #[test]
    fn a_stored_password_matches_itself_only_and_survives_its_text() {
        let stored = Stored::new("pässword".as_bytes(), Cost::TEST).unwrap();
        assert!(stored.to_phc().starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
        let again = Stored::parse(&stored.to_phc()).unwrap();
        assert!(again.matches("pässword".as_bytes()));
        assert!(!again.matches(b"password"));
        assert!(!again.matches(b""));
        assert_ne!(stored.to_phc(), Stored::new("pässword".as_bytes(), Cost::TEST).unwrap().to_phc());
    }

    #[test]
    fn the_recommended_cost_is_what_new_users_get() {
        let Cost { memory_kib, passes, iterations } = Cost::RECOMMENDED;
        assert_eq!((memory_kib, passes, iterations), (19 * 1024, 2, 15_000));
    }

    #[test]
    fn foreign_and_greedy_hashes_are_refused() {
        let salt_and_hash = "c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for (text, complaint) in [
            ("plain", "is not a PHC string"),
            ("", "is not a PHC string"),
            (&format!("$argon2i$v=19$m=8,t=1,p=1${salt_and_hash}"), "uses argon2i"),
            (&format!("$argon2id$v=19$m=4000000,t=1,p=1${salt_and_hash}"), "asks for more"),
            (&format!("$argon2id$v=19$m=8,t=65,p=1${salt_and_hash}"), "asks for more"),
            ("$argon2id$v=19$m=8,t=1,p=1", "lacks its salt"),
        ] {
            let problem = Stored::parse(text).unwrap_err();
            assert!(problem.starts_with(complaint), "{text}: {problem}");
        }
        Stored::parse(&format!("$argon2id$v=19$m=8,t=1,p=1${salt_and_hash}")).unwrap();
    }
}
