//! Query side: answers from the views only
