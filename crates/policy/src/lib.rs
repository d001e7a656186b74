//! Rule model, compiled image and matcher.
#![cfg_attr(not(feature = "std"), no_std)]
